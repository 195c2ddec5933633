"""Checkpoints that AutoAWQ has packed: read as plain ones, and mistrusted by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model import awq, tensor_reader
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.weight_files import SINGLE
from minicpmo_ros.runtime.torch_runtime import TorchNetwork
from tests.model.packing import drawn, pack_checkpoint, packed, plain
from tests.model.test_checkpoint import respoil
from tests.model.test_checkpoint_command import minicpmo

LAYER = "llm.model.layers.0."
ATTENTION = [f"{LAYER}self_attn.{name}_proj" for name in "qkvo"]
MLP = [f"{LAYER}mlp.{name}_proj" for name in ("gate", "up", "down")]
Q = f"{LAYER}self_attn.q_proj"


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 5), st.sampled_from([32, 64, 128]))
def test_what_is_packed_comes_back(seed: int, groups: int, eighths: int, group: int) -> None:
    codes, zeros, scales = drawn(seed, groups * group, eighths * 8, group)
    found = awq.unpack(packed(codes), packed(zeros), torch.from_numpy(scales))
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy().T, plain(codes, zeros, scales))


def test_a_number_holds_its_outputs_in_the_order_of_autoawq() -> None:
    """The eight nibbles, from the lowest on, are outputs 0 2 4 6 1 3 5 7."""
    one = torch.tensor([[0x76543210]], dtype=torch.int32)
    assert awq.nibbles(one).tolist() == [[0, 4, 1, 5, 2, 6, 3, 7]]
    highest = torch.tensor([[-1]], dtype=torch.int32)
    assert awq.nibbles(highest).tolist() == [[15] * 8]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_stage_gets_plain_weights(own_checkpoint: Path, dtype: torch.dtype) -> None:
    before = load_file(own_checkpoint / SINGLE)
    expected = pack_checkpoint(own_checkpoint, [*ATTENTION, *MLP])
    opened = Checkpoint(own_checkpoint)
    llm = opened.build(lambda: Llm(opened.config.llm), "llm.", dtype)
    for name, value in llm.state_dict().items():
        key = f"llm.{name}"
        right = torch.from_numpy(expected[key]) if key in expected else before[key]
        assert torch.equal(value, right.to(dtype)), key


def test_matrices_of_many_pieces_are_whole(
    own_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pack_checkpoint(own_checkpoint, MLP, group=32)
    monkeypatch.setattr(tensor_reader, "UNPACKED_WEIGHTS", 3 * 32 * 128)
    opened = Checkpoint(own_checkpoint)
    for name, right in expected.items():
        assert np.array_equal(opened.read(name).numpy(), right)
        assert np.array_equal(opened.read(name, rows=slice(5, 90)).numpy(), right[5:90])


def test_some_rows_of_a_plain_matrix(own_checkpoint: Path) -> None:
    opened = Checkpoint(own_checkpoint)
    whole = opened.read("llm.lm_head.weight")
    assert torch.equal(opened.read("llm.lm_head.weight", rows=slice(100, 300)), whole[100:300])
    head = opened.read("tts.head_code.0.weight")
    assert torch.equal(opened.read("tts.head_code.0.weight", rows=slice(7, 9)), head[7:9])


def test_progress_counts_what_lies_in_the_files(own_checkpoint: Path) -> None:
    pack_checkpoint(own_checkpoint, [Q])
    opened = Checkpoint(own_checkpoint)
    read: list[int] = []
    opened.read(f"{Q}.weight", read.append)
    assert sum(read) == opened.bytes_below(Q) == 128 * 16 * 4 + 16 * 4 + 128 * 2


def test_parts_of_a_matrix_may_lie_in_several_files(own_checkpoint: Path) -> None:
    expected = pack_checkpoint(own_checkpoint, [Q])
    weights = load_file(own_checkpoint / SINGLE)
    (own_checkpoint / SINGLE).unlink()
    second = {key: weights.pop(key) for key in (f"{Q}.qzeros", f"{Q}.scales")}
    for number, part in ((1, weights), (2, second)):
        save_file(part, own_checkpoint / f"model-0000{number}-of-00002.safetensors")
    found = Checkpoint(own_checkpoint).read(f"{Q}.weight")
    assert np.array_equal(found.numpy(), expected[f"{Q}.weight"])


def test_the_network_runs_on_it(own_checkpoint: Path) -> None:
    pack_checkpoint(own_checkpoint, [*ATTENTION, *MLP])
    network = TorchNetwork.load(own_checkpoint)
    context = network.context(16)
    assert np.isfinite(context.logits(context.read([1, 2, 3]))).all()


def test_inspect_tells_of_it(own_checkpoint: Path) -> None:
    pack_checkpoint(own_checkpoint, [*ATTENTION, *MLP])
    assert "AWQ: 7 matrices lie in four bits, groups of 128" in minicpmo("inspect", own_checkpoint)


def test_the_list_of_plain_modules_may_be_missing(own_checkpoint: Path) -> None:
    expected = pack_checkpoint(own_checkpoint, [Q], modules_to_not_convert=None)
    assert np.array_equal(
        Checkpoint(own_checkpoint).read(f"{Q}.weight").numpy(), expected[f"{Q}.weight"]
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"quant_method": "gptq"}, "quantised with gptq; what is read are the published weights"),
        ({"bits": 8}, "bits is 8, not 4"),
        ({"zero_point": False}, "zero_point is False, not True"),
        ({"version": "gemv"}, "version is 'gemv', not 'gemm'"),
        ({"group_size": -1}, "group_size is -1"),
        ({"modules_to_not_convert": "vpm"}, "modules_to_not_convert is 'vpm', not a list"),
    ],
)
def test_another_packing_is_named(own_checkpoint: Path, changed: dict[str, Any], says: str) -> None:
    pack_checkpoint(own_checkpoint, [Q], **changed)
    with pytest.raises(CheckpointError, match=says):
        Checkpoint(own_checkpoint)


def test_versions_are_read_in_any_case(own_checkpoint: Path) -> None:
    pack_checkpoint(own_checkpoint, [Q], version="GEMM")
    assert ModelConfig.load(own_checkpoint).awq is not None


def test_other_groups_than_the_configs_are_named(own_checkpoint: Path) -> None:
    pack_checkpoint(own_checkpoint, [Q], group=64)
    config = json.loads((own_checkpoint / "config.json").read_text())
    config["quantization_config"]["group_size"] = 128
    (own_checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"q_proj\.qzeros is \[2, 16\] instead of \[1, 16\]"):
        Checkpoint(own_checkpoint)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"qzeros": None}, r"q_proj\.qzeros is missing"),
        ({"weight": torch.zeros(128, 128)}, r"q_proj\.weight is there twice"),
        ({"scales": torch.zeros(1, 64)}, r"q_proj\.scales is \[1, 64\] instead of \[1, 128\]"),
        ({"g_idx": torch.zeros(128, dtype=torch.int32)}, r"no packed matrix: .*q_proj\.g_idx"),
        ({"qweight": torch.zeros(96, 16, dtype=torch.int32)}, r"inputs in groups of 128"),
        ({"qweight": torch.zeros(128, 16)}, r"q_proj\.qweight is torch\.float32, not int32"),
        (
            {"qweight": torch.zeros(256, 16, dtype=torch.int32)}
            | {"qzeros": torch.zeros(2, 16, dtype=torch.int32), "scales": torch.zeros(2, 128)},
            r"q_proj\.weight is \[128, 256\] instead of \[128, 128\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    own_checkpoint: Path, tensors: dict[str, torch.Tensor | None], says: str
) -> None:
    pack_checkpoint(own_checkpoint, [Q])
    respoil(own_checkpoint, **{f"{Q}.{kind}": value for kind, value in tensors.items()})
    with pytest.raises(CheckpointError, match=says):
        Checkpoint(own_checkpoint)


def test_a_matrix_that_should_be_plain_is_named(own_checkpoint: Path) -> None:
    pack_checkpoint(own_checkpoint, ["llm.lm_head"])
    with pytest.raises(CheckpointError, match=r"llm\.lm_head\.qweight .* 'lm_head' is not conv"):
        Checkpoint(own_checkpoint)


def test_config_and_weights_of_different_checkpoints_are_told_apart(
    own_checkpoint: Path, tiny_checkpoint: Path
) -> None:
    pack_checkpoint(own_checkpoint, [Q])
    config = (own_checkpoint / "config.json").read_text()
    (own_checkpoint / "config.json").write_text((tiny_checkpoint / "config.json").read_text())
    with pytest.raises(CheckpointError, match="has no quantization_config"):
        Checkpoint(own_checkpoint)
    (own_checkpoint / SINGLE).write_bytes((tiny_checkpoint / SINGLE).read_bytes())
    (own_checkpoint / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match="none of them is"):
        Checkpoint(own_checkpoint)

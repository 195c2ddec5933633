"""A checkpoint directory: read as it is published, a stage at a time, and mistrusted by name."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.tensor_reader import PIECE_BYTES
from minicpmo_ros.model.tiny import config_json, write_checkpoint
from minicpmo_ros.model.weight_files import INDEX, SINGLE


class Projection(nn.Module):
    """The audio projection, its parameters named as in the files below `audio_projection_layer.`"""

    def __init__(self, inputs: int = 64) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inputs, 128)
        self.linear2 = nn.Linear(128, 128)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head_code = nn.ModuleList([nn.Linear(64, 6562, bias=False)])


def respoil(directory: Path, **changed: torch.Tensor | None) -> None:
    """Replace tensors of the checkpoint, or take them out; `__` in a name stands for a dot."""
    weights = load_file(directory / SINGLE)
    for name, value in changed.items():
        key = name.replace("__", ".")
        weights.pop(key, None)
        if value is not None:
            weights[key] = value
    save_file(weights, directory / SINGLE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_stage_gets_its_tensors_in_the_dtype_asked_for(
    tiny_checkpoint: Path, dtype: torch.dtype
) -> None:
    stored = load_file(tiny_checkpoint / SINGLE)
    stage = Checkpoint(tiny_checkpoint).build(Projection, "audio_projection_layer.", dtype)
    for name, value in stage.state_dict().items():
        assert torch.equal(value, stored[f"audio_projection_layer.{name}"].to(dtype))
    assert not stage.training
    assert not any(parameter.requires_grad for parameter in stage.parameters())


def test_what_is_loaded_outlives_the_files(own_checkpoint: Path) -> None:
    stage = Checkpoint(own_checkpoint).build(Projection, "audio_projection_layer.")
    before = stage.linear1.weight.clone()
    (own_checkpoint / SINGLE).write_bytes(b"\0" * (own_checkpoint / SINGLE).stat().st_size)
    assert torch.equal(stage.linear1.weight, before)


def test_parts_under_other_names_are_mapped(tiny_checkpoint: Path) -> None:
    stage = nn.ModuleDict({"first": nn.Linear(64, 128), "second": nn.Linear(128, 128)})
    layers = "audio_projection_layer.linear"
    Checkpoint(tiny_checkpoint).load(stage, {"first.": f"{layers}1.", "second.": f"{layers}2."})
    stored = load_file(tiny_checkpoint / SINGLE)
    assert torch.equal(stage["second"].weight, stored[f"{layers}2.weight"])


def test_a_stage_with_whole_names_needs_no_prefix(tiny_checkpoint: Path) -> None:
    stage = nn.ModuleDict({"audio_projection_layer": Projection()})
    Checkpoint(tiny_checkpoint).load(stage)
    stored = load_file(tiny_checkpoint / SINGLE)["audio_projection_layer.linear1.bias"]
    assert torch.equal(stage["audio_projection_layer"].linear1.bias, stored)


def test_a_weight_normed_head_is_folded(tiny_checkpoint: Path) -> None:
    stored = load_file(tiny_checkpoint / SINGLE)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(64, 6562, bias=False))
    for part in ("original0", "original1"):
        name = f"parametrizations.weight.{part}"
        normed.get_parameter(name).data = stored[f"tts.head_code.0.{name}"]
    head = Checkpoint(tiny_checkpoint).build(Head, {"head_code.": "tts.head_code."})
    torch.testing.assert_close(head.head_code[0].weight, normed.weight.detach())


def test_a_tensor_of_many_pieces_is_whole(own_checkpoint: Path) -> None:
    config = config_json("tiny", 1024)
    rows = 3 * PIECE_BYTES // (64 * 4) + 17
    config["tts_config"] |= {"num_text_tokens": rows}
    (own_checkpoint / "config.json").write_text(json.dumps(config))
    table = torch.arange(rows * 64, dtype=torch.float32).view(rows, 64)
    respoil(own_checkpoint, tts__emb_text__weight=table)
    stage = Checkpoint(own_checkpoint).build(
        lambda: nn.Embedding(rows, 64), {"": "tts.emb_text."}, torch.float64
    )
    assert torch.equal(stage.weight, table.double())


def test_progress_counts_every_byte(tiny_checkpoint: Path) -> None:
    opened = Checkpoint(tiny_checkpoint)
    read: list[int] = []
    opened.build(Projection, "audio_projection_layer.", torch.bfloat16, progress=read.append)
    assert sum(read) == opened.bytes_below("audio_projection_layer.")
    assert sum(read) == 4 * sum(p.numel() for p in Projection().parameters())


def test_shards_hold_the_same_as_one_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    sharded = Checkpoint(write_checkpoint(tmp_path, shards=3))
    whole = Checkpoint(tiny_checkpoint)
    assert len({entry.file for entry in sharded.entries.values()}) == 3
    assert set(sharded.keys()) == set(whole.keys())
    ours, theirs = (c.build(Projection, "audio_projection_layer.") for c in (sharded, whole))
    assert torch.equal(ours.linear2.weight, theirs.linear2.weight)


def test_the_layers_of_vision_are_counted_in_the_weights(own_checkpoint: Path) -> None:
    config = config_json("tiny", 1024)
    config["drop_vision_last_layer"] = True  # one layer by the config, two in the weights
    (own_checkpoint / "config.json").write_text(json.dumps(config))
    assert Checkpoint(own_checkpoint).config.vision.layers == 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_loading_a_stage_takes_little_more_memory_than_the_stage(tmp_path: Path) -> None:
    """A file of 240 MB, of which a stage takes a table of 80 MB as 40 MB of bf16."""
    config = config_json("tiny", 1024)
    rows = 80_000_000 // (64 * 4)
    config["tts_config"] |= {"num_text_tokens": rows}
    config["vision_config"] |= {"image_size": 14 * 700}
    config["audio_config"] |= {"max_source_positions": 125_000}
    write_checkpoint(tmp_path, size=config)
    script = f"""
        import torch
        from torch import nn
        from minicpmo_ros.model.checkpoint import Checkpoint

        def memory(field):
            lines = open("/proc/self/status").read().splitlines()
            return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(field))

        checkpoint = Checkpoint({str(tmp_path)!r})
        checkpoint.build(lambda: nn.Embedding(6562, 64), {{"": "tts.emb_code.0."}}, torch.bfloat16)
        open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
        before = memory("VmRSS")
        table = checkpoint.build(
            lambda: nn.Embedding({rows}, 64), {{"": "tts.emb_text."}}, torch.bfloat16
        )
        print(memory("VmHWM") - before, memory("VmRSS") - before)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert ran.returncode == 0, ran.stderr
    peak, kept = map(int, ran.stdout.split())
    stage = rows * 64 * 2
    assert peak < stage + 1.5 * PIECE_BYTES
    assert kept < stage + 0.5 * PIECE_BYTES


def test_missing_unexpected_and_misshapen_tensors_are_listed_by_name(own_checkpoint: Path) -> None:
    respoil(
        own_checkpoint,
        resampler__query=None,
        apm__layer_norm__bias=torch.zeros(65),
        llm__model__layers__7__extra=torch.zeros(1),
    )
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(own_checkpoint)
    message = str(caught.value)
    assert "1 missing: resampler.query" in message
    assert "1 unexpected: llm.model.layers.7.extra" in message
    assert "apm.layer_norm.bias is [65] instead of [64]" in message


def test_what_has_no_place_passes_if_asked_to(own_checkpoint: Path) -> None:
    respoil(own_checkpoint, extra__tensor=torch.zeros(1))
    with pytest.raises(CheckpointError, match=r"1 unexpected: extra\.tensor"):
        Checkpoint(own_checkpoint)
    assert "extra.tensor" in Checkpoint(own_checkpoint, strict=False).entries


def test_what_nothing_computes_with_may_be_absent(own_checkpoint: Path) -> None:
    respoil(own_checkpoint, tts__model__embed_tokens__weight=None)
    assert "tts.model.embed_tokens.weight" not in Checkpoint(own_checkpoint).entries


def test_a_stage_that_does_not_fit_is_told_which_names(tiny_checkpoint: Path) -> None:
    opened = Checkpoint(tiny_checkpoint)
    with pytest.raises(CheckpointError, match=r"linear1\.weight is \[128, 64\] instead of .*32"):
        opened.build(lambda: Projection(32), "audio_projection_layer.")
    with pytest.raises(CheckpointError, match=r"2 unexpected: audio_projection_layer\.linear2"):
        opened.build(
            lambda: nn.ModuleDict({"linear1": nn.Linear(64, 128)}), "audio_projection_layer."
        )
    with pytest.raises(CheckpointError, match=r"missing: .*audio_projection_layer\.linear3"):
        opened.build(
            lambda: nn.ModuleDict(
                {f"linear{n}": nn.Linear(64 if n == 1 else 128, 128) for n in (1, 2, 3)}
            ),
            "audio_projection_layer.",
        )


def test_a_table_without_values_is_refused(tiny_checkpoint: Path) -> None:
    class Tabled(Projection):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("angles", torch.arange(3.0), persistent=False)

    with pytest.raises(CheckpointError, match="angles have no values"):
        Checkpoint(tiny_checkpoint).build(Tabled, "audio_projection_layer.")


def test_half_a_file_is_told_from_a_whole_one(own_checkpoint: Path) -> None:
    file = own_checkpoint / SINGLE
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=f"{len(whole) // 2} of {len(whole)} bytes: half"):
        Checkpoint(own_checkpoint)
    for start in (b"", whole[:5], whole[:300]):
        file.write_bytes(start)
        with pytest.raises(CheckpointError, match=r"model\.safetensors.*cut short"):
            Checkpoint(own_checkpoint)


def test_a_pointer_of_git_lfs_is_no_file(own_checkpoint: Path) -> None:
    (own_checkpoint / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        Checkpoint(own_checkpoint)


@pytest.mark.parametrize("index_came", [True, False])
def test_missing_shards_are_named(tmp_path: Path, index_came: bool) -> None:
    write_checkpoint(tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    if not index_came:
        (tmp_path / INDEX).unlink()
    with pytest.raises(CheckpointError, match=r"1 of 3 files.*model-00002-of-00003\.safetensors"):
        Checkpoint(tmp_path)


def test_shards_are_read_without_their_index(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, shards=2)
    (tmp_path / INDEX).unlink()
    assert "llm.lm_head.weight" in Checkpoint(tmp_path).entries


def test_a_spoilt_index_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, shards=2)
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(CheckpointError, match="is not an index of shards"):
        Checkpoint(tmp_path)


def test_no_weights_and_weights_of_another_kind_are_told_apart(own_checkpoint: Path) -> None:
    (own_checkpoint / SINGLE).unlink()
    with pytest.raises(CheckpointError, match=r"no weights.*checkpoint fetch"):
        Checkpoint(own_checkpoint)
    (own_checkpoint / "omni-Q4_K_M.gguf").touch()
    with pytest.raises(CheckpointError, match=r"has omni-Q4_K_M\.gguf.*model\.safetensors"):
        Checkpoint(own_checkpoint)


def test_weights_of_another_model_do_not_pass_with_our_config(own_checkpoint: Path) -> None:
    save_file({"model.embed_tokens.weight": torch.zeros(4, 4)}, own_checkpoint / SINGLE)
    with pytest.raises(CheckpointError, match=r"143 missing:.* 1 unexpected: model\.embed"):
        Checkpoint(own_checkpoint)


def test_a_quantised_checkpoint_is_refused(own_checkpoint: Path) -> None:
    respoil(own_checkpoint, llm__lm_head__weight=torch.zeros(1024, 128, dtype=torch.int8))
    with pytest.raises(
        CheckpointError, match=r"llm\.lm_head\.weight is I8.*published weights in bf16"
    ):
        Checkpoint(own_checkpoint)

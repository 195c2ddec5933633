"""flow.pt and flow.yaml: read safely, converted once, and refused by name where they do not fit."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model import converted
from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.loader import load_flow
from minicpmo_ros.model.flow.network import own_name, published_name
from minicpmo_ros.model.flow.settings import FlowSettings
from minicpmo_ros.model.flow.tiny import (
    PUBLISHED,
    TINY,
    published_shapes,
    random_flow,
    weights,
    write_flow,
)


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return write_flow(tmp_path / "token2wav", seed=3)


def rewrite(assets: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = weights(TINY, seed=3)
    change(tensors)
    torch.save(tensors, assets / "flow.pt")


def replaced(assets: Path, old: str, new: str) -> None:
    file = assets / "flow.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def same(flow: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = flow.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(x, theirs[n]) for n, x in ours.items())


def test_what_was_written_is_loaded(assets: Path) -> None:
    flow = load_flow(assets)
    assert flow.config == TINY
    assert same(flow, random_flow(seed=3))
    assert not flow.training and not any(x.requires_grad for x in flow.parameters())


def test_weights_come_in_the_dtype_asked_for(assets: Path) -> None:
    flow = load_flow(assets, dtype=torch.float16)
    assert {x.dtype for x in flow.parameters()} == {torch.float16}


def test_sizes_follow_from_the_weights_and_so_does_the_size_of_the_published_file() -> None:
    shapes = published_shapes(PUBLISHED)
    assert FlowConfig.from_shapes(shapes) == PUBLISHED
    # flow.pt is listed with 595 MB, of 2 ** 20 bytes.
    assert 594 <= 4 * sum(map(math.prod, shapes.values())) / 2**20 <= 595
    assert all(published_name(str(own_name(name))) == name for name in shapes)


def test_the_pickle_is_read_once(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_flow(assets)
    monkeypatch.setattr(converted, "read_torch_file", lambda file: pytest.fail("read again"))
    assert same(load_flow(assets), first)
    (assets / "flow.pt").unlink()
    assert same(load_flow(assets), first)


def test_a_copy_with_another_time_is_not_converted_again(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_flow(assets)
    os.utime(assets / "flow.pt", ns=(1, 1))
    monkeypatch.setattr(converted, "read_torch_file", lambda file: pytest.fail("read again"))
    assert same(load_flow(assets), random_flow(seed=3))


def test_other_weights_are_converted_anew(assets: Path) -> None:
    load_flow(assets)
    write_flow(assets, seed=4)
    os.utime(assets / "flow.pt", ns=(1, 1))  # within the clock's tick, and of the same size
    assert same(load_flow(assets), random_flow(seed=4))


def test_where_nothing_can_be_written_beside_it_a_cache_keeps_the_conversion(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (assets / "flow.safetensors" / "in the way").mkdir(parents=True)
    load_flow(assets)
    (kept,) = (tmp_path / "caches" / "minicpmo_ros" / "weights").iterdir()
    assert kept.suffix == ".safetensors"
    monkeypatch.setattr(converted, "read_torch_file", lambda file: pytest.fail("read again"))
    assert same(load_flow(assets), random_flow(seed=3))


def test_where_nothing_can_be_written_at_all_it_loads_even_so(assets: Path, tmp_path: Path) -> None:
    (assets / "flow.safetensors" / "in the way").mkdir(parents=True)
    (tmp_path / "caches").write_text("in the way")
    assert same(load_flow(assets), random_flow(seed=3))


def test_the_conversion_may_be_replaced_under_a_network_that_runs(assets: Path) -> None:
    flow = load_flow(assets)
    flow = load_flow(assets)
    with (assets / "flow.safetensors").open("r+b") as opened:
        opened.write(bytes((assets / "flow.safetensors").stat().st_size))
    assert same(flow, random_flow(seed=3))


@pytest.mark.parametrize("length", [0, 1000, 100_000, -1])
def test_a_truncated_file_is_told_as_such(assets: Path, length: int) -> None:
    whole = (assets / "flow.pt").read_bytes()
    (assets / "flow.pt").write_bytes(whole[:length])
    with pytest.raises(CheckpointError, match=r"flow\.pt .*cut short"):
        load_flow(assets)


class Opened:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.write_text, (self.file, "run")


def test_nothing_in_a_pickle_is_run(assets: Path, tmp_path: Path) -> None:
    torch.save(weights(TINY) | {"more": Opened(tmp_path / "trace")}, assets / "flow.pt")
    with pytest.raises(CheckpointError, match="wants code to be run"):
        load_flow(assets)
    assert not (tmp_path / "trace").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"flow\.pt is missing.*assets/token2wav"):
        load_flow(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("encoder_proj.bias"), r"1 missing: encoder_proj\.bias"),
        (lambda w: w.update(extra=torch.zeros(2)), "1 unexpected: extra"),
        (
            lambda w: w.update({"encoder_proj.bias": torch.zeros(17)}),
            r"1 of another shape: encoder_proj\.bias is \[17\] instead of \[16\]",
        ),
        (
            lambda w: w.update({"encoder_proj.bias": torch.zeros(16, dtype=torch.int64)}),
            r"1 no numbers: encoder_proj\.bias",
        ),
        (lambda w: w.pop("input_embedding.weight"), r"input_embedding\.weight is missing"),
        (
            lambda w: w.update({"decoder.estimator.in_proj.weight": torch.zeros(24)}),
            r"in_proj\.weight is \[24\]; it should have 2 axes",
        ),
        (lambda w: w.pop("decoder.estimator.blocks.1.mlp.fc1.weight"), r"blocks\.1\.mlp\.fc1"),
        (
            lambda w: w.update({"encoder.up_layer.conv.weight": torch.zeros(32, 32, 4)}),
            "kernel of 4",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    assets: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    rewrite(assets, change)
    with pytest.raises(CheckpointError, match=message):
        load_flow(assets)
    assert not (assets / "flow.safetensors").exists()


def test_guidance_is_that_of_the_settings(assets: Path) -> None:
    replaced(assets, "inference_cfg_rate: 0.7", "inference_cfg_rate: 0.25")
    assert load_flow(assets).config.guidance == 0.25
    (assets / "flow.yaml").unlink()
    assert load_flow(assets).config.guidance == 0.7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_blocks: 3", "num_blocks: 6", r"encoder\.num_blocks is 6 instead of 3"),
        ("depth: 2", "depth: 16", r"estimator\.depth is 16 instead of 2"),
        ("'rel_pos_espnet'", "'abs_pos'", "pos_enc_layer_type is 'abs_pos'"),
        ("normalize_before: true", "normalize_before: false", "normalize_before is False"),
        ("inference_cfg_rate: 0.7", "inference_cfg_rate: much", "'much', not a number"),
        ("flow: ", "flow: [", "is not YAML"),
    ],
)
def test_settings_that_do_not_fit_are_named(assets: Path, old: str, new: str, message: str) -> None:
    replaced(assets, old, new)
    with pytest.raises(CheckpointError, match=message):
        load_flow(assets)


def test_nothing_in_the_settings_is_constructed(assets: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    call = f"!!python/object/apply:os.system ['touch {trace}']"
    replaced(assets, "inference_cfg_rate: 0.7", f"inference_cfg_rate: {call}")
    replaced(assets, "!new:cosyvoice2.flow.flow.CausalMaskedDiffWithXvec", "!apply:os.getcwd")
    assert load_flow(assets).config.guidance == 0.7
    assert not trace.exists()


def test_settings_are_looked_up_by_path(assets: Path) -> None:
    settings = FlowSettings(assets / "flow.yaml")
    assert settings.get("flow.encoder.num_up_blocks") == 2
    assert settings.get("flow.output_type") == "mel"
    assert settings.get("flow.encoder") is None
    assert settings.get("flow.encoder.num_blocks.more") is None

"""hift.pt: every way it is published in, what is wrong with one, and no code run from any."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model import converted
from minicpmo_ros.model.hift.vocoder import Vocoder
from minicpmo_ros.model.hift.weights import folded, load_vocoder, vocoder_file
from minicpmo_ros.model.torch_file import read_torch_file
from tests.model.hift_network import DIRECTION, GAIN, PLAIN, SMALL, published, small_vocoder

Tensors = dict[str, Any]


def tensors() -> Tensors:
    return {name: torch.from_numpy(array) for name, array in published().items()}


def prefixed(of: Tensors) -> Tensors:
    return {f"generator.{name}": tensor for name, tensor in of.items()}


def older(of: Tensors) -> Tensors:
    """The names of torch.nn.utils.weight_norm."""
    return {
        name.replace(GAIN, "weight_g").replace(DIRECTION, "weight_v"): tensor
        for name, tensor in of.items()
    }


def written(folder: Path, content: object, name: str = "hift.pt") -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / name)
    return folder / name


def assert_is_small(vocoder: Vocoder) -> None:
    expected, found = small_vocoder().state_dict(), vocoder.state_dict()
    assert vocoder.config == SMALL and found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name)
    assert not vocoder.training
    assert not any(parameter.requires_grad for parameter in vocoder.parameters())


@pytest.mark.parametrize("form", [tensors, lambda: prefixed(tensors()), lambda: older(tensors()),
                                  lambda: folded(tensors())],
                         ids=["newer", "prefixed", "older", "folded"])  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_every_published_form_is_the_same_vocoder(
    tmp_path: Path, form: Callable[[], Tensors], zipped: bool
) -> None:
    torch.save(form(), tmp_path / "hift.pt", _use_new_zipfile_serialization=zipped)
    assert_is_small(load_vocoder(tmp_path / "hift.pt"))
    assert_is_small(load_vocoder(tmp_path / "hift.pt"))


def test_norms_are_folded_as_torch_folds_them() -> None:
    for layer in (torch.nn.Conv1d(3, 5, 4), torch.nn.ConvTranspose1d(3, 5, 4)):
        normed = torch.nn.utils.parametrizations.weight_norm(layer)
        found = folded(normed.state_dict())
        torch.testing.assert_close(found["weight"], normed.weight.detach())
        assert found.keys() == {"weight", "bias"}


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in tensors().items()}
    vocoder = load_vocoder(written(tmp_path, halves))
    assert {parameter.dtype for parameter in vocoder.parameters()} == {torch.float32}


def never(file: Path) -> Tensors:
    raise AssertionError(f"{file} was read again")


def test_a_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, tensors())
    load_vocoder(file)
    assert {found.name for found in tmp_path.iterdir()} == {"hift.pt", "hift.safetensors"}
    monkeypatch.setattr(converted, "read_torch_file", never)
    assert_is_small(load_vocoder(file))


def test_another_file_of_that_name_is_converted_anew(tmp_path: Path) -> None:
    other = tensors() | {"m_source.l_linear.bias": torch.tensor([0.5])}
    load_vocoder(written(tmp_path, other))
    assert_is_small(load_vocoder(written(tmp_path, tensors())))
    assert_is_small(load_vocoder(tmp_path / "hift.pt"))


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", None])
def test_a_damaged_conversion_is_made_anew(tmp_path: Path, content: bytes | None) -> None:
    file = written(tmp_path, tensors())
    load_vocoder(file)
    converted = tmp_path / "hift.safetensors"
    converted.write_bytes(converted.read_bytes()[:-100] if content is None else content)
    assert_is_small(load_vocoder(file))
    assert converted.stat().st_size > 1000


def test_a_folder_that_takes_no_files_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the tests may write anywhere, so a folder is in the file's place instead."""
    file = written(tmp_path / "assets", tensors())
    (tmp_path / "assets" / "hift.safetensors" / "in the way").mkdir(parents=True)
    cache = tmp_path / "caches" / "minicpmo_ros"
    assert_is_small(load_vocoder(file, cache))
    assert len(list(cache.iterdir())) == 1
    assert len(list((tmp_path / "assets").iterdir())) == 2
    monkeypatch.setattr(converted, "read_torch_file", never)
    assert_is_small(load_vocoder(file, cache))


def test_without_any_folder_it_loads_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "hift.pt"))
    file = written(tmp_path, tensors())
    (tmp_path / "hift.safetensors" / "in the way").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        assert_is_small(load_vocoder(file))
    assert "converted at every start" in caplog.text


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_is_run_from_a_pickle(tmp_path: Path, zipped: bool) -> None:
    sprung, file = tmp_path / "sprung", tmp_path / "hift.pt"
    content = tensors() | {"conv_pre.bias": Trap(sprung)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="wants code to be run, which is never done"):
        load_vocoder(file)
    assert not sprung.exists() and not (tmp_path / "hift.safetensors").exists()
    torch.load(file, weights_only=False)
    assert sprung.exists(), "the trap does not work, so the test showed nothing"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_half_a_file_is_refused(tmp_path: Path, share: float, zipped: bool) -> None:
    file = tmp_path / "hift.pt"
    torch.save(tensors(), file, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"hift\.pt .*(cut short|damaged)"):
        load_vocoder(file)


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], r"holds a list, not tensors by name"),
        ({"epoch": 3, "step": 7}, r"holds what are no tensors: epoch, step"),
        ({}, r"not the weights of a HiFT vocoder: conv_pre\.weight is missing"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_vocoder(written(tmp_path, content))


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"hift\.pt is missing; .*assets/token2wav"):
        load_vocoder(tmp_path / "hift.pt")
    with pytest.raises(CheckpointError, match=r"hift\.pt is not there"):
        read_torch_file(tmp_path / "hift.pt")
    pointer = tmp_path / "hift.pt"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 83390254\n")
    with pytest.raises(CheckpointError, match=r"git-lfs pointer, not weights; run `git lfs pull`"):
        load_vocoder(pointer)


def without(name: str) -> Tensors:
    return {key: tensor for key, tensor in tensors().items() if key != name}


@pytest.mark.parametrize(
    "content, message",
    [
        (without("resblocks.3.activations1.2.alpha"),
         r"1 missing: resblocks\.3\.activations1\.2\.alpha$"),
        (without(f"ups.1.{GAIN}"), r"half of a normed weight is missing: ups\.1\.param.*original0"),
        (without(f"ups.1.{DIRECTION}"), r"half of a normed weight is missing: ups\.1\..*original1"),
        (tensors() | {"discriminator.bias": torch.zeros(3)}, r"1 unexpected: discriminator\.bias$"),
        (tensors() | {"conv_post.bias": torch.zeros(3)},
         r"1 of another shape: conv_post\.bias is \[3\] instead of \[18\]"),
        (tensors() | {f"ups.0.{GAIN}": torch.zeros(3)},
         r"hift\.pt: ups\.0\.: its gain is \[3\] and its direction .* should be \[32, 1, 1\]"),
        (tensors() | {"m_source.l_linear.weight": torch.zeros(9)},
         r"hift\.pt: these are not .*l_linear\.weight is \[9\], not of 2 dimensions"),
    ],
    ids=["missing", "no gain", "no direction", "unexpected", "shape", "gain's shape", "rank"],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, content: Tensors, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_vocoder(written(tmp_path, content))
    assert not (tmp_path / "hift.safetensors").exists()


def test_the_causal_vocoder_is_refused_by_name(tmp_path: Path) -> None:
    causal = tensors()
    for layer, shape in (("conv_pre", (32, 20, 5)), ("f0_predictor.condnet.0", (24, 20, 4))):
        causal[f"{layer}.{DIRECTION}"] = torch.zeros(shape)
    file = written(tmp_path, causal)
    with pytest.raises(CheckpointError, match=r"causal vocoder that minicpmo-utils 1\.0\.7"):
        load_vocoder(vocoder_file(tmp_path))
    original = written(tmp_path, prefixed(tensors()), "hift_original.pt")
    assert vocoder_file(tmp_path) == original != file
    assert_is_small(load_vocoder(vocoder_file(tmp_path)))


def test_a_folder_without_a_vocoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no vocoder, hift\.pt"):
        vocoder_file(tmp_path)


def test_the_tests_weights_have_the_published_names() -> None:
    """As minicpmo-utils 1.0.6 has them; the arrays that it made were made on these."""
    names = published().keys()
    assert {f"f0_predictor.condnet.8.{GAIN}", f"source_resblocks.2.convs2.2.{DIRECTION}"} <= names
    assert {"source_downs.2.weight", "resblocks.8.activations2.0.alpha"} <= names
    assert np.count_nonzero([name.endswith(GAIN) for name in names]) == 5 + 1 + 3 + 12 * 6 + 1
    assert {name for name in names if name.startswith(PLAIN)} == {
        f"{layer}.{kind}"
        for layer in ("m_source.l_linear", "f0_predictor.classifier")
        for kind in ("weight", "bias")
    } | {f"source_downs.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")}

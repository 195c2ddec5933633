"""A whole network under onnxruntime, built from a recipe, against the same in torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
from minicpmo_ros.runtime.api import Network
from minicpmo_ros.runtime.engines.build import PROJECTOR
from minicpmo_ros.runtime.torch_runtime import TorchNetwork
from tests.built_network import write_recipe

EXACT = 1e-5


@pytest.fixture(scope="module")
def ours(built: Callable[[str], Network]) -> Network:
    return built("fp32")


@pytest.fixture(scope="module")
def theirs(tiny_checkpoint: Path) -> Network:
    return TorchNetwork.load(tiny_checkpoint, packed=False)


def error(found: Any, expected: Any) -> float:
    """Largest difference, as a share of the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.1).astype(np.float32)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (70, 40), (1, 900)])
def test_pictures_of_any_size(ours: Network, theirs: Network, size: tuple[int, int]) -> None:
    from minicpmo_ros.model.picture import slices

    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    shown = slices(picture, 4, theirs.config.slices)
    found, expected = ours.look(shown), theirs.look(shown)
    assert len(found) == len(expected) == len(shown)
    assert max(error(a, b) for a, b in zip(found, expected, strict=True)) < EXACT


@pytest.mark.parametrize("overlap_s", [0, 10])
def test_a_stream_of_sound_beyond_what_the_encoder_remembers(
    ours: Network, theirs: Network, overlap_s: int
) -> None:
    mine, reference = ours.ears(overlap_s), theirs.ears(overlap_s)
    for second in noise(33 * 16_000).reshape(33, -1):
        assert error(mine.step(second), reference.step(second)) < EXACT
    for stream in (mine, reference):
        stream.reset()
    assert error(mine.step(second), reference.step(second)) < EXACT


@pytest.mark.parametrize("samples", [1281, 16_000, 48_161, 87_777, 30 * 16_000, 533_210])
def test_whole_sounds_of_any_length(ours: Network, theirs: Network, samples: int) -> None:
    """Also with an odd number of frames, and of more than a piece."""
    sound = noise(samples)
    assert error(ours.sound(sound), theirs.sound(sound)) < EXACT
    for compat in (False, True) if samples >= 16_000 else (True,):
        voices = (one.voice(sound, reference_compat=compat) for one in (ours, theirs))
        assert error(*voices) < EXACT


def test_seconds_of_a_sound(ours: Network, theirs: Network) -> None:
    found, expected = ours.seconds(noise(48_000)), theirs.seconds(noise(48_000))
    assert len(found) == len(expected) == 3
    assert max(error(a, b) for a, b in zip(found, expected, strict=True)) < EXACT


def test_reading_writing_and_forgetting(ours: Network, theirs: Network) -> None:
    """Over several files of layers, in several blocks, with rows removed and moved."""
    mine, reference = ours.context(900), theirs.context(900)
    ids = list(range(3, 203))
    assert error(mine.read(ids), reference.read(ids)) < EXACT
    for context in (mine, reference):
        context.remove([(5, 60), (100, 101)])
        context.shift(80, 90)
    hidden = mine.read([7, 8], at=85), reference.read([7, 8], at=85)
    assert error(*hidden) < EXACT
    hidden = mine.read([9]), reference.read([9])
    assert error(mine.logits(hidden[0]), reference.logits(hidden[1])) < EXACT
    assert mine.length == reference.length == 155
    assert error(mine.keys(50), reference.keys(50)) < EXACT


@pytest.mark.parametrize("normalize", [True, False])
def test_what_is_to_be_said_becomes_codes(ours: Network, theirs: Network, normalize: bool) -> None:
    ids, hidden, codes = [4, 5, 6], [], []
    for one in (ours, theirs):
        states = one.context(50).read([1, 2, 3])
        thought = one.condition(ids, [states], text_ended=True, normalize=normalize)
        hidden.append(thought)
        context = one.speech()
        codes.append(context.logits(context.read(thought, [7, 8])))
        assert len(one.condition([], [], text_ended=False, normalize=normalize)) == 1
    assert error(*hidden) < EXACT
    assert error(*codes) < EXACT


def test_eight_bits_are_near(built: Callable[[str], Network], theirs: Network) -> None:
    """Four bits are not, of weights so random; `test_check` holds them against themselves."""
    small = built("cpu")
    second = noise(16_000)
    assert 1e-4 < error(small.ears().step(second), theirs.ears().step(second)) < 0.03
    found, expected = (one.speech().read(list(range(40))) for one in (small, theirs))
    assert 1e-4 < error(found, expected) < 0.05


def test_what_is_built_is_loaded_without_torch(
    tiny_checkpoint: Path, engines: Path, ours: Network, tmp_path: Path
) -> None:
    """In a process of its own, which builds nothing."""
    before = {file: file.stat().st_mtime_ns for file in engines.rglob("*.onnx")}
    own = write_recipe(tmp_path / "fp32.yaml")
    code = f"""
import sys
from pathlib import Path
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.load import load_network
from minicpmo_ros.runtime.engines.recipe import load
recipe = load({str(own)!r})
network = load_network({str(tiny_checkpoint)!r}, recipe, cache=EngineCache({str(engines)!r}))
context = network.context(20)
context.logits(context.read([1, 2, 3]))
assert not {{"torch", "transformers", "onnx"}} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert {file: file.stat().st_mtime_ns for file in engines.rglob("*.onnx")} == before


def test_the_projector_has_its_parameters(tiny_checkpoint: Path) -> None:
    from minicpmo_ros.model.checkpoint import Checkpoint

    keys = Checkpoint(tiny_checkpoint).keys()
    assert {f"tts.projector_semantic.{name}" for name in PROJECTOR.values()} <= set(keys)

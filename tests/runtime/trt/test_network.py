"""A whole network of engines, on a card that onnxruntime plays, against the same in torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.picture import slices
from minicpmo_ros.runtime.api import Network
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.check import check
from minicpmo_ros.runtime.engines.pieces import Piece
from minicpmo_ros.runtime.engines.recipe import LlmRecipe, Recipe, VisionRecipe
from minicpmo_ros.runtime.load import Loader, ensure, load_network
from minicpmo_ros.runtime.torch_runtime import TorchNetwork
from minicpmo_ros.runtime.trt import jobs
from minicpmo_ros.runtime.trt.card import Card
from minicpmo_ros.runtime.trt.library import Library
from tests.runtime.networks import close
from tests.runtime.trt.fake_cuda import FakeCuda
from tests.runtime.trt.fake_trt import fake_module, write_engine

# Single precision and half.
NEAR = 0.02


@dataclass(frozen=True)
class Machine:
    """A fake card, and what a recipe makes of the tiny checkpoint there."""

    cuda: FakeCuda
    network: Network
    files: dict[Piece, Path]


@pytest.fixture(scope="module")
def machine(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    cuda = FakeCuda()
    rtx = Library("tensorrt_rtx", fake_module(cuda))

    def build(library: Library, onnx_file: Path, engine: Path, profiles: Any, **how: Any) -> None:
        write_engine(engine, onnx_file, profiles)

    recipe = Recipe(
        runtime="tensorrt_rtx",
        precision="fp16",
        targets=("sm89",),
        vision=VisionRecipe(patches=(600, 1100)),
        llm=LlmRecipe(layers_per_file=1, embeddings="fp32", prefill=64),
        kv_capacity=4096,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "library", lambda name: rtx)
        patch.setattr(jobs, "Card", lambda: Card(cuda=cuda))
        patch.setattr(jobs, "build", build)
        cache = EngineCache(tmp_path_factory.mktemp("engines"))
        network = load_network(tiny_checkpoint, recipe, cache=cache)
        yield Machine(cuda, network, ensure(tiny_checkpoint, recipe, cache))


@pytest.fixture
def ours(machine: Machine) -> Network:
    return machine.network


@pytest.fixture(scope="module")
def theirs(tiny_checkpoint: Path) -> Network:
    return TorchNetwork.load(tiny_checkpoint, packed=False)


def noise(samples: int) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(samples) * 0.1).astype(np.float32)


@pytest.mark.parametrize("size", [(640, 480), (70, 40), (200, 900)])
def test_pictures_of_any_size(ours: Network, theirs: Network, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    shown = slices(picture, 4, theirs.config.slices)
    found, expected = ours.look(shown), theirs.look(shown)
    assert len(found) == len(expected) == len(shown)
    assert all(close(a, b, NEAR) for a, b in zip(found, expected, strict=True))


def test_a_stream_of_sound_beyond_what_the_encoder_remembers(
    ours: Network, theirs: Network
) -> None:
    mine, reference = ours.ears(10), theirs.ears(10)
    for second in noise(33 * 16_000).reshape(33, -1):
        assert close(mine.step(second), reference.step(second), NEAR)
    mine.reset()
    reference.reset()
    assert close(mine.step(second), reference.step(second), NEAR)


def test_whole_sounds(ours: Network, theirs: Network) -> None:
    """Also one that ends within a second."""
    for samples in (16_000, 87_777):
        assert close(ours.sound(noise(samples)), theirs.sound(noise(samples)), NEAR)


def test_files_are_what_they_should_be(machine: Machine, tiny_checkpoint: Path) -> None:
    """As `minicpmo engines check` sees it."""
    checkpoint = Checkpoint(tiny_checkpoint)
    loader = Loader(checkpoint.config, machine.files, 0, lambda what, share: None)
    found = list(check(checkpoint.config, lambda name: checkpoint.read(name).numpy(), loader))
    assert "llm.turn" in [one.piece.name for one in found]
    assert all(one.expected for one in found)


def test_a_window_that_slides_leaves_keys_on_the_card(
    machine: Machine, theirs: Network, caplog: pytest.LogCaptureFixture
) -> None:
    mine, reference = machine.network.context(900), theirs.context(900)
    for context in (mine, reference):
        context.read(list(range(3, 303)))
    crossed = machine.cuda.crossed
    mine.remove([(5, 60)])
    assert 0 < machine.cuda.crossed - crossed <= 4 * theirs.config.llm.head_dim
    reference.remove([(5, 60)])
    assert close(mine.keys(245), reference.keys(245), NEAR)
    assert not caplog.messages


def test_reading_writing_and_speaking(ours: Network, theirs: Network) -> None:
    mine, reference = ours.context(900), theirs.context(900)
    ids = list(range(3, 203))
    assert close(mine.read(ids), reference.read(ids), NEAR)
    for context in (mine, reference):
        context.remove([(5, 60), (100, 101)])
    for token in range(5):
        hidden = mine.read([token]), reference.read([token])
        assert close(*hidden, NEAR)
        assert close(mine.logits(hidden[0]), reference.logits(hidden[1]), NEAR)
    codes = []
    for one, states in ((ours, hidden[0]), (theirs, hidden[1])):
        thought = one.condition([4], [states], text_ended=True, normalize=True)
        context = one.speech()
        context.read(thought)
        for code in range(5):
            logits = context.logits(context.read([code]))
        codes.append(logits)
    assert close(*codes, NEAR)

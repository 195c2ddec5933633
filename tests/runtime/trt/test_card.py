"""What is asked of CUDA: of the real bindings the calls, of a fake card the answers."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_entry import EngineKey
from minicpmo_ros.runtime.engines.pieces import pieces
from minicpmo_ros.runtime.engines.recipe import load
from minicpmo_ros.runtime.trt import jobs
from minicpmo_ros.runtime.trt.card import Card
from minicpmo_ros.runtime.trt.library import Library
from tests.runtime.trt.fake_cuda import FakeCuda
from tests.runtime.trt.fake_trt import fake_module


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


def test_a_card_tells_what_it_is(cuda: FakeCuda) -> None:
    card = Card(cuda=cuda)
    assert card.about == "Fake RTX 4090 (sm89, driver for CUDA 13.1)"
    assert card.free_bytes == cuda.free
    assert card.board == "sm89 Fake RTX 4090, 128 multiprocessors"


def test_an_engine_of_tensorrt_belongs_to_one_board(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT tunes an engine for the board that builds it: what another built is not found."""
    config, recipe = ModelConfig.load(tiny_checkpoint), load("jetson_orin")
    piece = pieces(config, recipe)[0]
    jetpack = Library("tensorrt", fake_module(FakeCuda(), rtx=False))
    monkeypatch.setattr(jobs, "library", lambda name: jetpack)

    def key(multiprocessors: int) -> EngineKey:
        card = Card(cuda=FakeCuda(multiprocessors=multiprocessors))
        monkeypatch.setattr(jobs, "Card", lambda: card)
        return jobs.engine_job(piece, "mark", config, recipe, EngineCache(tmp_path)).key

    assert key(16).target == "sm89 Fake RTX 4090, 16 multiprocessors"
    assert key(16).name == key(16).name != key(8).name


def test_without_a_card_or_driver_that_is_said() -> None:
    with pytest.raises(EngineError, match=r"no NVIDIA card.*ErrorNoDevice.*driver"):
        Card(cuda=FakeCuda(devices=0))
    with pytest.raises(EngineError, match="no card 1, only 1"):
        Card(1, cuda=FakeCuda())


def test_copies_happen_in_order_and_are_waited_for(cuda: FakeCuda) -> None:
    card = Card(cuda=cuda)
    host, device, back = card.pinned(4), card.memory(4), card.pinned(4)
    host.bytes[:] = [1, 2, 3, 4]
    card.copy(device.address, host.address, 4)
    card.copy(back.address, device.address, 4)
    assert (back.bytes == 0xFF).all()
    card.synchronize()
    assert list(back.bytes) == [1, 2, 3, 4]


def test_a_graph_does_again_what_was_captured(cuda: FakeCuda) -> None:
    card = Card(cuda=cuda)
    host, device = card.pinned(4), card.memory(4)
    with card.captured() as graph:
        card.copy(device.address, host.address, 4)
    for value in (5, 6):
        host.bytes[:] = value
        card.synchronize()
        graph.launch()
        card.synchronize()
        assert (cuda.view(device.address, 4) == value).all()


def test_what_fails_while_capturing_ends_the_capture(cuda: FakeCuda) -> None:
    card = Card(cuda=cuda)
    with pytest.raises(KeyError), card.captured():
        raise KeyError
    assert cuda.capturing is None
    with pytest.raises(EngineError, match=r"cudaMalloc: .*CaptureUnsupported"), card.captured():
        card.memory(10)


def test_memory_is_zero_and_given_back(cuda: FakeCuda) -> None:
    card = Card(cuda=cuda)
    free = cuda.free
    memory = card.memory(1000)
    card.synchronize()
    assert not cuda.view(memory.address, 1000).any()
    assert cuda.free == free - 1000
    del memory
    assert cuda.free == free
    with pytest.raises(EngineError, match=r"has no 2.15 GB left, 1.07 GB are free"):
        card.memory(1 << 31)


def test_scratch_memory_grows_and_never_is_there_twice(cuda: FakeCuda) -> None:
    card = Card(cuda=FakeCuda(total=10000))
    card.scratch.reserve(4000)
    address = card.scratch.address
    card.scratch.reserve(3000)
    assert (card.scratch.address, card.scratch.nbytes) == (address, 4000)
    card.scratch.reserve(9000)  # which does not fit beside the 4000
    assert card.scratch.nbytes == 9000


def without_a_driver(real: Any) -> Any:
    """The real bindings, which find no driver, but for what a card needs to come to be."""
    fake = FakeCuda()
    found = types.SimpleNamespace(**{name: getattr(real, name) for name in dir(real)})
    ok = real.cudaError_t.cudaSuccess
    found.cudaGetDeviceCount = lambda: (ok, 1)
    found.cudaSetDevice = lambda index: (ok,)
    found.cudaStreamCreateWithFlags = lambda flags: (ok, real.cudaStream_t(0))
    found.fake = fake
    return found


def test_the_real_bindings_take_these_calls() -> None:
    """Each reaches CUDA, which misses a driver: a wrong argument would be a TypeError before."""
    real = pytest.importorskip("cuda.bindings.runtime", reason="the bindings need the extra rtx")
    if real.cudaGetDeviceCount()[0] == real.cudaError_t.cudaSuccess:
        pytest.skip("there is a card here, which such addresses would harm")
    with pytest.raises(EngineError, match="no NVIDIA card here that can be used"):
        Card()
    card = Card(cuda=without_a_driver(real))
    for attempt in (
        lambda: card.name,
        lambda: card.target,
        lambda: card.board,
        lambda: card.free_bytes,
        lambda: card.memory(100),
        lambda: card.pinned(100),
        lambda: card.copy(4096, 8192, 10),
        lambda: card.copy_strips(4096, 20, 8192, 30, 10, 2),
        lambda: card.synchronize(),
        lambda: card.captured().__enter__(),
        lambda: (
            card._call("cudaSetDevice", 0)
            or card._call("cudaMemsetAsync", 4096, 0, 8, card._stream)
        ),
        lambda: card._call("cudaStreamEndCapture", card._stream),
        lambda: card._call("cudaGraphInstantiate", real.cudaGraph_t(0), 0),
        lambda: card._call("cudaGraphDestroy", real.cudaGraph_t(0)),
        lambda: card._call("cudaGraphLaunch", real.cudaGraphExec_t(0), card._stream),
    ):
        with pytest.raises(EngineError, match=r"driver version is insufficient|invalid"):
            attempt()
    assert np.uint8(real.cudaStreamNonBlocking) == 1


def test_the_fake_card_has_no_call_that_the_real_one_lacks() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="the bindings need the extra rtx")
    calls = [name for name in dir(FakeCuda) if name.startswith("cuda")]
    assert len(calls) > 20
    assert [name for name in calls if not hasattr(real, name)] == []

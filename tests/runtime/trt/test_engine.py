"""What is loaded, and what is refused in which words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.trt.card import Card
from minicpmo_ros.runtime.trt.chain import SAVE_AFTER
from minicpmo_ros.runtime.trt.engine import Engine
from minicpmo_ros.runtime.trt.library import Library, library
from minicpmo_ros.runtime.trt.profiles import decoder_profiles, head_profiles
from minicpmo_ros.runtime.trt.stage import TrtStage
from tests.runtime.networks import CONFIG
from tests.runtime.trt.fake_cuda import FakeCuda
from tests.runtime.trt.fake_trt import fake_module, write_engine


@dataclass
class Place:
    """A library and a card that are not there."""

    library: Library
    card: Card

    def load(self, file: Path) -> Engine:
        return Engine(self.library, self.card, file)


def place(*, rtx: bool = True) -> Place:
    cuda = FakeCuda()
    name = "tensorrt_rtx" if rtx else "tensorrt"
    return Place(Library(name, fake_module(cuda, rtx=rtx)), Card(cuda=cuda))


def test_an_engine_tells_what_it_takes(single: list[Path], tmp_path: Path) -> None:
    profiles = decoder_profiles(64, 500, packed=True)
    engine = place().load(write_engine(tmp_path / "engine", single[0], profiles))
    assert engine.tensors["embeds"].shape == (-1, CONFIG.hidden)
    assert engine.tensors["past"].dtype == np.int64
    assert [one.name for one in engine.outputs][:2] == ["hidden", "rows.0"]
    assert engine.profile({"embeds": (1, CONFIG.hidden)}) == 0
    assert engine.profile({"embeds": (64, CONFIG.hidden)}) == 1
    for shape in ((65, CONFIG.hidden), (1, 7), (1,)):
        with pytest.raises(EngineError, match="was not built for embeds"):
            engine.profile({"embeds": shape})


@pytest.mark.parametrize("rtx", [True, False])
def test_engines_of_others_are_refused_in_words(
    single: list[Path], tmp_path: Path, rtx: bool
) -> None:
    here = place(rtx=rtx)
    foreign = {
        "version mismatch": {"version": "0.9"},
        "unsupported cc": {"card": "sm120"},
    }
    for why, how in foreign.items():
        file = write_engine(tmp_path / "engine", single[-1], head_profiles(), **how)
        with pytest.raises(EngineError) as raised:
            here.load(file)
        message = str(raised.value)
        assert str(file) in message
        assert "Fake RTX 4090 (sm89, driver for CUDA 13.1)" in message
        assert here.library.text in message
        assert "Error Code 1" in message  # the library's own words
        assert (why in message) == rtx  # where the library can tell
    file.write_bytes(b"not an engine")
    with pytest.raises(EngineError, match="cannot be loaded"):
        here.load(file)
    file.write_bytes(b"")
    with pytest.raises(EngineError, match="is not there"):
        here.load(file)
    with pytest.raises(EngineError, match="is not there"):
        here.load(tmp_path / "absent")


def test_kernels_compiled_for_this_card_are_kept(single: list[Path], tmp_path: Path) -> None:
    file = write_engine(tmp_path / "head.engine", single[-1], head_profiles())
    kept = tmp_path / "head.kernels"
    feed = {"hidden": np.ones((1, CONFIG.hidden), np.float32)}

    def run(times: int) -> None:
        here = place()
        stage = TrtStage(here.library, here.card, file)
        for _ in range(times):
            stage.run(feed)

    run(SAVE_AFTER[0] - 1)
    assert not kept.exists()
    run(SAVE_AFTER[0])
    content = kept.read_bytes()
    assert content.startswith(b"sm89 ")
    # Of another card: nothing is taken, and what is compiled takes its place.
    kept.write_bytes(b"sm120 0:1 ")
    run(SAVE_AFTER[0])
    assert kept.read_bytes() == content
    # With nothing new, nothing is written.
    modified = kept.stat().st_mtime_ns
    run(SAVE_AFTER[0])
    assert kept.stat().st_mtime_ns == modified


def test_kernels_that_cannot_be_written_are_no_error(
    single: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = place()
    file = write_engine(tmp_path / "head.engine", single[-1], head_profiles())
    stage = TrtStage(here.library, here.card, file)
    (tmp_path / "head.kernels").mkdir()
    for _ in range(SAVE_AFTER[0]):
        stage.run({"hidden": np.ones((1, CONFIG.hidden), np.float32)})
    assert not (tmp_path / "head.kernels.part").exists()
    assert "kernels are compiled again" in caplog.text


def test_the_real_library_refuses_an_engine_without_a_driver(
    half: list[Path], tmp_path: Path
) -> None:
    """It gives back nothing and raises nothing; what it logged is in our error."""
    pytest.importorskip("tensorrt_rtx", reason="building engines needs the extra rtx")
    from minicpmo_ros.runtime.trt.builder import build

    real = pytest.importorskip("cuda.bindings.runtime", reason="the bindings need the extra rtx")
    if real.cudaGetDeviceCount()[0] == real.cudaError_t.cudaSuccess:
        pytest.skip("there is a card here")
    rtx = library("tensorrt_rtx")
    file = tmp_path / "engine"
    build(rtx, half[-1], file, head_profiles())
    card = Card(cuda=FakeCuda())
    with pytest.raises(EngineError, match="CUDA driver version is insufficient"):
        Engine(rtx, card, file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(EngineError, match=r"blobSize|malformed engine"):
        Engine(rtx, card, file)

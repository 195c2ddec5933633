"""Building by TensorRT-RTX, which needs no card for it; `test_every_stage` builds each stage."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
pytest.importorskip("tensorrt_rtx", reason="building engines needs the extra rtx")
from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.runtime.engines.build import Job
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.pieces import pieces
from minicpmo_ros.runtime.engines.recipe import load
from minicpmo_ros.runtime.trt import builder, jobs, library
from minicpmo_ros.runtime.trt.builder import assert_packed, build
from minicpmo_ros.runtime.trt.jobs import engine_job
from minicpmo_ros.runtime.trt.library import Library
from minicpmo_ros.runtime.trt.profiles import decoder_profiles, head_profiles
from tests.runtime.networks import LARGE, llm_files, random_llm

DECODER = decoder_profiles(64, 512, packed=True)


@pytest.fixture(scope="module")
def rtx() -> Library:
    return library.library("tensorrt_rtx")


def test_weights_of_four_bits_stay_packed(rtx: Library, tmp_path: Path) -> None:
    """At a size at which weights are most of an engine; half precision takes four times as much,
    and what looks for unpacked weights finds them."""
    llm = random_llm(LARGE)
    built = {}
    for precision in ("int4", "fp16"):
        folder = tmp_path / precision
        folder.mkdir()
        layers, _ = llm_files(llm, folder, "float16", precision, 1)
        profiles = decoder_profiles(64, 512, packed=precision == "int4")
        built[precision] = build(rtx, layers, folder / "engine", profiles).nbytes
        assert_packed(layers, folder / "engine")
    assert built["int4"] < 0.45 * built["fp16"]
    with pytest.raises(EngineError, match="did not keep them packed"):
        assert_packed(tmp_path / "int4" / "llm.00.onnx", tmp_path / "fp16" / "engine")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_graphs_are_strongly_typed(
    rtx: Library, half: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT-RTX makes no others; TensorRT would choose precisions itself, unless told."""
    flags = []
    module = rtx.module
    real = module.Builder.create_network

    class Builder(module.Builder):
        def create_network(self, flag: int) -> Any:
            flags.append(flag)
            network = real(self, flag)
            assert network.get_flag(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            return network

    monkeypatch.setattr(module, "Builder", Builder)
    build(rtx, half[2], tmp_path / "engine", head_profiles())
    assert flags == [1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)]


def test_each_target_is_built_for(rtx: Library, half: list[Path], tmp_path: Path) -> None:
    assert {"sm86", "sm89", "sm120"} <= set(rtx.targets())
    with pytest.raises(EngineError, match="does not build for sm87; it can: sm75, sm80, sm86"):
        build(rtx, half[0], tmp_path / "engine", DECODER, targets=("sm86", "sm87"))
    # Which it knows, but not for four bits: so targets do reach it.
    with pytest.raises(EngineError, match=r"cannot build llm.00.onnx for sm75: .*int4"):
        build(rtx, half[0], tmp_path / "engine", DECODER, targets=("sm75",))
    assert not (tmp_path / "engine").exists()


def job(tiny_checkpoint: Path, tmp_path: Path, *targets: str) -> Job:
    config = ModelConfig.load(tiny_checkpoint)
    recipe = replace(load("rtx"), targets=targets)
    (piece,) = (one for one in pieces(config, recipe) if one.name == "llm.turn")
    return engine_job(piece, "mark", config, recipe, EngineCache(tmp_path))


def test_a_recipe_means_the_same_engine_on_every_machine(
    rtx: Library, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a card or without: all that take four bits, unless it names some."""
    monkeypatch.setattr(jobs, "Card", None)
    usual = job(tiny_checkpoint, tmp_path).key.target.split("+")
    assert {"sm80", "sm86", "sm89", "sm120"} <= set(usual) <= set(rtx.targets()) - {"sm75"}
    assert job(tiny_checkpoint, tmp_path, "sm89", "sm120").key.target == "sm89+sm120"


def test_the_usual_targets_take_four_bits(rtx: Library, half: list[Path], tmp_path: Path) -> None:
    assert build(rtx, half[0], tmp_path / "engine", DECODER, targets=rtx.usual_targets).nbytes


def test_what_cannot_be_parsed_is_named(rtx: Library, half: list[Path], tmp_path: Path) -> None:
    import onnx

    model = onnx.load(half[2], load_external_data=False)
    model.graph.node[0].op_type = "NoSuchThing"
    model.graph.node[0].name = "head_product"
    broken = half[2].with_name("broken.onnx")  # its weights are beside it
    onnx.save(model, broken)
    with pytest.raises(
        EngineError, match=r"cannot parse .*broken.onnx: node head_product \(NoSuch"
    ):
        build(rtx, broken, tmp_path / "engine", head_profiles())
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"no graph at all")
    with pytest.raises(EngineError, match="cannot parse"):
        build(rtx, junk, tmp_path / "engine", head_profiles())
    with pytest.raises(EngineError, match="is not there"):
        build(rtx, tmp_path / "absent.onnx", tmp_path / "engine", head_profiles())
    with pytest.raises(EngineError, match="dimension tokens of any size"):
        build(rtx, half[2], tmp_path / "engine", [{"rows": (1, 2, 3)}])
    broken.unlink()
    assert [file.name for file in tmp_path.iterdir()] == ["junk.onnx"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_build_that_is_stopped_leaves_nothing(
    rtx: Library, half: list[Path], tmp_path: Path, error: type[BaseException]
) -> None:
    def stop(share: float) -> None:
        if share > 0.1:
            raise error

    with pytest.raises(error):
        build(rtx, half[0], tmp_path / "engine", DECODER, progress=stop)
    assert not list(tmp_path.iterdir())
    # And the library goes on to work.
    assert build(rtx, half[2], tmp_path / "engine", head_profiles()).nbytes


@pytest.fixture
def listening() -> Iterator[None]:
    """What runs in the background of a shell, as tests may, begins with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_stops_a_build(rtx: Library, half: list[Path], tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    sent = threading.Event()

    def interrupt(share: float) -> None:
        if not sent.is_set():
            sent.set()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(rtx, half[0], tmp_path / "engine", DECODER, progress=interrupt)
    assert sent.is_set() and not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is before


def test_a_full_disk_is_told_of(
    rtx: Library, half: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(builder.os, "fsync", full)
    with pytest.raises(EngineError, match=r"cannot be written, it needs .* are free; make room"):
        build(rtx, half[2], tmp_path / "engine", head_profiles())
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_builds_share_what_they_have_measured(
    rtx: Library, half: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TensorRT, which measures kernels; TensorRT-RTX has the same calls and ignores them."""
    file = tmp_path / "timing"
    build(rtx, half[2], tmp_path / "engine", head_profiles(), timing_cache=file)
    assert not file.exists()

    given = []
    jetson = Library("tensorrt", rtx.module)
    config = rtx.module.IBuilderConfig
    real = config.create_timing_cache

    def create(self: Any, content: bytes) -> Any:
        given.append(bytes(content))
        return real(self, content)

    monkeypatch.setattr(config, "create_timing_cache", create)
    combined = []
    cache = rtx.module.ITimingCache
    monkeypatch.setattr(cache, "combine", lambda ours, theirs, force: combined.append(force))
    build(jetson, half[2], tmp_path / "engine", head_profiles(), timing_cache=file)
    measured = file.read_bytes()
    assert measured
    build(jetson, half[2], tmp_path / "engine", head_profiles(), timing_cache=file)
    # Before the build and after it, when others may have added to it.
    assert given == [b"", b"", measured, measured]
    assert combined == [False, False]
    assert not list(tmp_path.glob("*.part"))


@pytest.fixture
def _no_jetpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_loaded", {})
    for name in library.LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("_no_jetpack")
def test_what_is_not_installed_is_said_with_what_would_install_it() -> None:
    with pytest.raises(EngineError, match=r"tensorrt_rtx is not installed.*extra rtx"):
        library.library("tensorrt_rtx")
    with pytest.raises(EngineError, match=r"tensorrt is not installed.*JetPack"):
        library.library("tensorrt")
    with pytest.raises(EngineError, match="no runtime onnxruntime"):
        library.library("onnxruntime")


def test_jetpack_builds_for_no_other_card(half: list[Path], tmp_path: Path, rtx: Library) -> None:
    class Module:
        ILogger = rtx.module.ILogger
        __version__ = "10.3.0"

    jetson = Library("tensorrt", Module)
    assert not jetson.names_targets and jetson.text == "TensorRT 10.3.0"
    with pytest.raises(EngineError, match="does not build for sm87; it can: only for the card"):
        builder._set_targets(jetson, None, ("sm87",))

"""What keeps a network from being built or loaded is told, and before anything was begun."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from minicpmo_ros.errors import CheckpointError, EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tiny import config_json
from minicpmo_ros.runtime import load
from minicpmo_ros.runtime.engines import disk, recipe, room
from minicpmo_ros.runtime.engines.build_lock import locked
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.planning import run_memory
from minicpmo_ros.runtime.load import ensure, load_network
from tests import built_network
from tests.runtime.quick_export import Writer, cache, writer

if TYPE_CHECKING:
    from minicpmo_ros.runtime.api import Network

__all__ = ["cache", "writer"]

FP32 = built_network.recipe("fp32")
# Of the tiny network.
NEARLY = run_memory(ModelConfig.from_json(config_json("tiny", 1024)), FP32).total - 10**6


@pytest.mark.parametrize(
    ("where", "name", "nbytes", "said"),
    [
        (
            disk,
            "free_bytes",
            10**6,
            r"what is to be built needs 9\.\d MB of disk, 1\.0 MB are free",
        ),
        (load, "available_bytes", 10**8, r"takes 0\.\d+ GB of memory at once, 0\.10 GB are free"),
        (room, "total_bytes", 4 * 10**8, r"GB of memory \(.*there are 0\.40 GB; even with 1024"),
        (room, "total_bytes", NEARLY, r"; kv_capacity: \d+ would fit"),
    ],
)
def test_too_little_room_is_told_before_anything_is_built(
    where: Any,
    name: str,
    nbytes: int,
    said: str,
    tiny_checkpoint: Path,
    cache: EngineCache,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, name, lambda *given: nbytes)
    with pytest.raises(EngineError, match=said):
        load_network(tiny_checkpoint, FP32, cache=cache)
    assert writer.made == []
    assert cache.entries() == [] and cache.broken() == {}


def test_what_is_built_needs_no_room_to_build(
    tiny_checkpoint: Path, cache: EngineCache, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ensure(tiny_checkpoint, FP32, cache)
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 0)
    monkeypatch.setattr(load, "available_bytes", lambda: 1)
    assert ensure(tiny_checkpoint, FP32, cache) == files
    monkeypatch.setattr(room, "total_bytes", lambda: 10**8)
    with pytest.raises(EngineError, match=r"there are 0\.10 GB"):  # it would not run
        ensure(tiny_checkpoint, FP32, cache)


@pytest.mark.parametrize("free_again", [True, False])
def test_what_another_builds_is_waited_for_and_needs_no_room_before(
    free_again: bool,
    tiny_checkpoint: Path,
    cache: EngineCache,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other takes memory while it builds; whether that is enough is asked when it is done."""
    written = ensure(tiny_checkpoint, FP32, cache)
    (vision,) = (file.parent for piece, file in written.items() if piece.name == "vision")
    shutil.rmtree(cache.folder)
    writer.again()
    memory = [1]
    monkeypatch.setattr(load, "available_bytes", lambda: memory[0])
    with ExitStack() as other:
        other.enter_context(locked(cache.folder / ".locks" / vision.name, "builds", print))

        def waiting(text: str) -> None:
            assert text.startswith("waiting for process")
            assert writer.made == []
            memory[0] = 10**12 if free_again else 1
            other.close()

        if free_again:
            assert ensure(tiny_checkpoint, FP32, cache, say=waiting) == written
            assert writer.made[0] == "vision"
        else:
            with pytest.raises(EngineError, match="of memory at once"):
                ensure(tiny_checkpoint, FP32, cache, say=waiting)
            assert writer.made == [] and cache.entries() == []


def without_modules(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if they were not installed, also for our own modules that import them first."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
    for ours in ("model.checkpoint", "runtime.export.plans", "runtime.export.writer"):
        monkeypatch.delitem(sys.modules, f"minicpmo_ros.{ours}", raising=False)


@pytest.mark.parametrize("missing", ["torch", "onnx_ir", "onnxscript"])
def test_what_building_needs_is_told_and_is_not_needed_to_load(
    missing: str,
    tiny_checkpoint: Path,
    engines: Path,
    built: Callable[[str], Network],
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built("fp32")
    without_modules(monkeypatch, missing)
    found = load_network(tiny_checkpoint, FP32, cache=EngineCache(engines))
    assert "recipe fp32 on onnxruntime" in found.about
    with pytest.raises(EngineError, match=r"building needs the extras 'model' and 'export' \(.*"):
        load_network(tiny_checkpoint, FP32, cache=cache)
    assert cache.entries() == [] and cache.broken() == {}


@pytest.mark.parametrize("version", ["", "1.21.4", "0.30"])
def test_onnxruntime_is_asked_for_before_anything_is_built(
    version: str,
    tiny_checkpoint: Path,
    cache: EngineCache,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if version:
        monkeypatch.setattr("onnxruntime.__version__", version)
    else:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = f"onnxruntime {version} .*1.22 or later" if version else "onnxruntime is not installed"
    with pytest.raises(EngineError, match=said):
        load_network(tiny_checkpoint, FP32, cache=cache)
    assert writer.made == []


@pytest.mark.usefixtures("no_card")
def test_a_card_is_asked_for_before_anything_is_built(
    tiny_checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    with pytest.raises(EngineError, match=r"card|tensorrt_rtx"):
        load_network(tiny_checkpoint, recipe.load("rtx"), cache=cache)
    assert writer.made == []


@pytest.mark.parametrize(
    ("piece", "name"),
    [("vision", "stage.onnx"), ("llm.00", "stage.onnx"), ("speech.tables", "projector.npz")],
)
def test_a_file_of_other_bytes_is_told_by_name(
    piece: str,
    name: str,
    tiny_checkpoint: Path,
    engines: Path,
    built: Callable[[str], Network],
    tmp_path: Path,
) -> None:
    """Its size is right, so only loading it tells."""
    built("fp32")
    own = EngineCache(shutil.copytree(engines, tmp_path / "own"))
    files = ensure(tiny_checkpoint, FP32, own)
    (file,) = (file for one, file in files.items() if one.name == piece)
    spoilt = (file if file.is_dir() else file.parent) / name
    size = spoilt.stat().st_size
    spoilt.write_bytes(np.random.default_rng(0).bytes(size))
    with pytest.raises(EngineError) as caught:
        load_network(tiny_checkpoint, FP32, cache=own)
    assert str(spoilt) in str(caught.value)
    assert f"`minicpmo engines clean {spoilt.parent.name}`" in str(caught.value)
    own.clean([spoilt.parent.name])
    load_network(tiny_checkpoint, FP32, cache=own)


def test_no_checkpoint_is_told(tmp_path: Path, cache: EngineCache, writer: Writer) -> None:
    with pytest.raises(CheckpointError, match="nowhere: there is no such directory"):
        load_network(tmp_path / "nowhere", FP32, cache=cache)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_network(tmp_path, FP32, cache=cache)
    assert writer.made == []

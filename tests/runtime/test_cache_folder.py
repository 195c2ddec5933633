"""Where engines are kept, where no folder can be had, and what is said then."""

from __future__ import annotations

import pwd
import shutil
from pathlib import Path
from typing import Any

import pytest

from minicpmo_ros.errors import CheckpointError, EngineError
from minicpmo_ros.model import conversion
from minicpmo_ros.runtime.engines import disk, recipe
from minicpmo_ros.runtime.engines.cache import EngineCache, default_folder
from minicpmo_ros.runtime.engines.cache_entry import EngineKey
from minicpmo_ros.runtime.engines.shipped import ShippedEngines
from minicpmo_ros.runtime.jobs import is_calibrated

KEY = EngineKey("c0ffee", "llm.00", "int4", {}, "onnx", "1", "any")
SCALED = recipe.of({"precision": "int8", "llm": {"precision": "int4"}, "scaling": "awq"})


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, as in a container."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "MINICPMO_ENGINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder may be looked into, which root may always."""

    def refuse(*given: Any, **how: Any) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("is_dir", "exists", "iterdir"):
        monkeypatch.setattr(Path, name, refuse)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_directory_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"~/\.cache: .* no home directory.*MINICPMO_ENGINES"):
        default_folder()
    cache = EngineCache()  # which may not be needed
    assert cache.fingerprints is None
    with pytest.raises(EngineError, match="set MINICPMO_ENGINES to a folder"):
        cache.entries()
    with pytest.raises(EngineError, match="~/own: the user has no home directory"):
        EngineCache("~/own")
    with pytest.raises(CheckpointError, match=r"no home directory here; set XDG_CACHE_HOME"):
        conversion.default_cache()
    monkeypatch.setenv("MINICPMO_ENGINES", "/engines")
    assert cache.folder == Path("/engines")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_directory_weights_are_converted_beside_themselves(tmp_path: Path) -> None:
    file = tmp_path / "hift.pt"
    file.write_bytes(b"weights")
    assert conversion.Source(file).places(None) == [tmp_path / "hift.safetensors"]
    assert len(conversion.Source(file).places(tmp_path / "cache")) == 2
    assert conversion.find(file) is None


@pytest.mark.usefixtures("closed")
def test_a_folder_that_may_not_be_looked_into_is_an_error(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    said = r"cannot be written to \(Permission denied\); set MINICPMO_ENGINES"
    for ask in (lambda: cache.find(KEY), cache.entries, lambda: disk.free_bytes(cache.folder)):
        with pytest.raises(EngineError, match=said):
            ask()
    assert not is_calibrated(cache, "c0ffee", SCALED)
    # Beside a checkpoint, nothing came with it then.
    assert ShippedEngines(tmp_path).names() == set()


def test_what_cannot_be_copied_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = EngineCache(tmp_path / "cache").ensure(KEY, _write)

    def refuse(*given: Any, **how: Any) -> None:
        raise shutil.Error([("stage.onnx", "there", "no space is left")])

    monkeypatch.setattr(shutil, "copytree", refuse)
    with pytest.raises(EngineError, match=r"cannot be written to: .*no space is left"):
        ShippedEngines(tmp_path).put([folder])


def _write(part: Path) -> None:
    (part / "stage.onnx").write_bytes(b"graph")

"""`minicpmo engines list` and `clean`."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from typer.testing import CliRunner

from minicpmo_ros.cli import app
from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.fingerprint import fingerprint
from minicpmo_ros.runtime.engines import cache as cache_module
from minicpmo_ros.runtime.engines.build_lock import locked
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_entry import EngineKey


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "cache"))
    return EngineCache()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def make(part: Path) -> None:
    (part / "graph.onnx").write_bytes(bytes(2_000_000))


def built(cache: EngineCache, checkpoint: Path, **others: object) -> str:
    """The name of an entry that was built for the checkpoint as it is."""
    key = EngineKey(
        fingerprint(checkpoint, cache.fingerprints), "vision", "int8", {}, "onnxruntime", "1", "cpu"
    )
    return cache.ensure(replace(key, **others), make, source=checkpoint).name


def engines(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["engines", *words])
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_an_engine_is_listed_with_all_that_tells_it_apart(cache, checkpoint):
    name = built(cache, checkpoint)
    code, text = engines("list")
    assert code == 0
    for word in (name, "int8", "onnxruntime 1", "cpu", "2.0 MB", "now", str(checkpoint)):
        assert word in text
    assert "1 engines" in text


def test_nothing_is_listed_where_nothing_was_built(cache):
    assert engines("list") == (0, f"{cache.folder}: 0 engines, 0.0 kB\n")


def test_damage_is_listed_and_fails(cache, checkpoint):
    name = built(cache, checkpoint)
    (cache.folder / name / "graph.onnx").write_bytes(b"\1" + bytes(1_999_999))
    assert engines("list")[0] == 0
    code, text = engines("list", "--verify")
    assert code == 1
    assert f"{name}: " in text and "its bytes have changed" in text
    (cache.folder / name / "graph.onnx").write_bytes(b"")
    assert engines("list")[0] == 1


def test_what_is_of_use_stays(cache, checkpoint):
    name = built(cache, checkpoint)
    code, text = engines("clean")
    assert (code, text) == (0, f"0 removed from {cache.folder}, 0.0 kB\n")
    assert [entry.name for entry in cache.entries()] == [name]


def test_a_changed_checkpoints_engines_go(cache, checkpoint):
    old = built(cache, checkpoint)
    (checkpoint / "model.safetensors").write_bytes(b"other weights")
    new = built(cache, checkpoint)
    text = engines("clean")[1]
    assert f"{old}: its checkpoint, {checkpoint}, is gone or has changed" in text
    assert [entry.name for entry in cache.entries()] == [new]


def test_a_checkpoint_that_was_moved_keeps_its_engines_once_it_was_used_again(
    cache, checkpoint, tmp_path
):
    name = built(cache, checkpoint)
    moved = checkpoint.rename(tmp_path / "moved")
    assert "is gone" in engines("clean", "--dry-run")[1]
    # Files settle after two seconds; this one was made long before.
    for file in moved.iterdir():
        os.utime(file, (1, 1))
    fingerprint(moved, cache.fingerprints)
    engines("clean")
    assert [entry.name for entry in cache.entries()] == [name]


def test_of_two_versions_the_one_that_was_built_first_goes(cache, checkpoint, monkeypatch):
    class Clock(datetime):
        hour_of_day = 9

        @classmethod
        def now(cls, tz=None):
            return datetime(2030, 1, 1, cls.hour_of_day, tzinfo=timezone.utc)

    monkeypatch.setattr(cache_module, "datetime", Clock)
    first = built(cache, checkpoint, version="2")
    Clock.hour_of_day = 10
    second = built(cache, checkpoint, version="1")
    other = built(cache, checkpoint, version="0", target="sm86")
    assert f"{first}: was built again since onnxruntime 2" in engines("clean")[1]
    assert {entry.name for entry in cache.entries()} == {second, other}


def test_leftovers_and_damaged_entries_go(cache, checkpoint):
    name = built(cache, checkpoint)
    (cache.folder / name / "manifest.json").write_text("{")
    part = f"{built(cache, checkpoint, stage='audio')}.part"
    (cache.folder / part).mkdir()
    text = engines("clean")[1]
    assert f"{part}: was never finished" in text
    assert "manifest.json is damaged" in text
    assert cache.broken() == {}
    assert len(cache.entries()) == 1


def test_a_dry_run_removes_nothing(cache, checkpoint):
    name = built(cache, checkpoint)
    assert engines("clean", "--all", "--dry-run")[1] == f"{name}\n1 would go from {cache.folder}\n"
    assert len(cache.entries()) == 1


def test_engines_go_by_name_or_all(cache, checkpoint):
    names = [built(cache, checkpoint, stage=stage) for stage in ("vision", "audio", "speech")]
    engines("clean", names[0])
    assert {entry.name for entry in cache.entries()} == set(names[1:])
    with pytest.raises(EngineError, match="'llm' is not in"):
        engines("clean", "llm")
    text = engines("clean", "--all")[1]
    assert f"2 removed from {cache.folder}, 4.0 MB" in text
    assert cache.entries() == []


def test_calibrations_go_with_all_engines_but_not_while_something_is_built(cache, checkpoint):
    name = built(cache, checkpoint)
    files = [cache.folder / f"calibration-c0ffee.{kind}" for kind in ("npz", "begun.npz")]
    for file in files:
        file.write_bytes(bytes(1_000_000))
    engines("clean")
    assert all(file.exists() for file in files)
    text = engines("clean", "--all", "--dry-run")[1]
    assert "calibration-c0ffee.npz\n" in text and "3 would go" in text
    with locked(cache.folder / ".locks" / name, "builds vision", print):
        text = engines("clean", "--all")[1]
    assert "calibration-c0ffee.npz stays: something is being built" in text
    assert "0 removed" in text and all(file.exists() for file in files)
    assert f"3 removed from {cache.folder}, 4.0 MB" in engines("clean", "--all")[1]
    assert not any(file.exists() for file in files)


def test_neither_torch_nor_onnxruntime_is_imported():
    """For looking into the cache and reading recipes."""
    code = (
        "import sys, minicpmo_ros.engines_cli\n"
        "import minicpmo_ros.runtime.engines.cache_cleaning\n"
        "from minicpmo_ros.runtime.engines import recipe\n"
        "recipe.load('cpu')\n"
        "print([name for name in ('torch', 'onnxruntime', 'rclpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

"""`minicpmo engines` for a checkpoint that has the vocoder's assets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from minicpmo_ros.errors import ConfigError, EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.runtime.engines import recipe, room
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_cleaning import useless
from minicpmo_ros.runtime.engines.planning import run_memory
from minicpmo_ros.runtime.vocoder_load import ensure_vocoder
from minicpmo_ros.runtime.vocoder_sizes import vocoder_beside
from tests import built_network
from tests.runtime.test_engines_build_command import rows, run

if TYPE_CHECKING:
    from minicpmo_ros.runtime.api import Network

GRAPHS = ("flow.encoder", "flow.estimator", "hift")


@pytest.fixture
def fp32(tmp_path: Path) -> str:
    return str(built_network.write_recipe(tmp_path / "fp32.yaml"))


@pytest.fixture
def speaking(own_checkpoint: Path) -> Path:
    from tests.runtime.vocoders import write_assets

    return write_assets(own_checkpoint)


def test_a_plan_holds_the_vocoder(
    speaking: Path, fp32: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "engines"))
    code, text = run("plan", speaking, fp32)
    assert code == 0
    found = rows(text)
    assert {"flow.tables", *GRAPHS} <= found.keys()
    assert found["hift"][:2] == ["onnxruntime", "fp32"]
    assert ", vocoder " in text and "no vocoder" not in text
    shutil.rmtree(speaking / "assets")
    silent = run("plan", speaking, fp32)[1]
    assert not {"flow.tables", *GRAPHS} & rows(silent).keys()
    assert "assets/token2wav has no flow.pt and hift.pt" in silent


def test_a_plan_in_which_the_vocoder_is_too_much_fails(
    speaking: Path, fp32: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "engines"))
    alone = run_memory(ModelConfig.load(speaking), recipe.load(fp32)).total
    monkeypatch.setattr(room, "total_bytes", lambda: alone)
    with pytest.raises(EngineError, match=r"the vocoder \d"):
        run("plan", speaking, fp32)
    shutil.rmtree(speaking / "assets")
    assert run("plan", speaking, fp32)[0] == 0


def test_the_vocoder_is_built_checked_and_kept(
    speaking: Path,
    fp32: str,
    engines: Path,
    built: Callable[[str], Network],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built("fp32")
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))
    assert run("build", speaking, fp32)[0] == 0
    found = rows(run("plan", speaking, fp32)[1])
    assert all(found[name][-1] == "yes" for name in ("flow.tables", *GRAPHS))
    code, text = run("check", speaking, fp32)
    checked = rows(text)
    assert code == 0 and set(GRAPHS) <= checked.keys()
    cache = EngineCache(engines)
    kept = {entry.name for entry in cache.entries() if entry.key.stage in GRAPHS}
    assert kept and not kept & useless(cache).keys()


def test_a_vocoder_that_ships_leaves_the_network_there(
    speaking: Path,
    fp32: str,
    tmp_path: Path,
    engines: Path,
    built: Callable[[str], Network],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built("fp32")
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))
    assert run("build", speaking, fp32, "--ship")[0] == 0
    there = {folder.name for folder in (speaking / "engines").iterdir()}
    assert any(name.startswith("llm.00") for name in there)
    own = tmp_path / "mixed.yaml"
    own.write_text("runtime: torch\nvocoder: {runtime: onnxruntime, precision: fp32}\n")
    code, text = run("build", speaking, str(own), "--ship")
    assert code == 0 and "4 files for mixed" in text
    assert {folder.name for folder in (speaking / "engines").iterdir()} == there
    # It is of use where the user has no folder for engines.
    monkeypatch.setenv("MINICPMO_ENGINES", "~nobody-of-this-name/engines")
    wanted, cache = recipe.load(str(own)), EngineCache()
    assert vocoder_beside(speaking, ModelConfig.load(speaking), wanted, cache) is not None
    files = ensure_vocoder(speaking, wanted, cache)
    assert {file.is_relative_to(speaking / "engines") for file in files.values()} == {True}


def test_a_vocoder_beside_a_network_in_torch_is_all_that_is_built(
    speaking: Path, tmp_path: Path, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))  # where the test before has built it
    own = tmp_path / "mixed.yaml"
    vocoder = "vocoder: {runtime: onnxruntime, precision: fp32}"
    own.write_text(f"runtime: torch\nthreads: 1\n{vocoder}\n")
    code, text = run("plan", speaking, str(own))
    assert code == 0 and rows(text).keys() == {"part", "flow.tables", *GRAPHS}
    for words in (("--report",), ("--bag", "own.mcap")):
        with pytest.raises(ConfigError, match="have no effect: of the recipe 'mixed' the vocoder"):
            run("check", speaking, str(own), *words)
    code, text = run("build", speaking, str(own))
    assert code == 0 and "4 files for mixed" in text
    code, text = run("check", speaking, str(own))
    assert code == 0 and rows(text).keys() == {"part", *GRAPHS}
    found = rows(run("plan", speaking, str(own))[1])
    assert all(found[name][-1] == "yes" for name in ("flow.tables", *GRAPHS))
    shutil.rmtree(speaking / "assets")
    for command in ("plan", "build", "check"):
        with pytest.raises(EngineError, match="for which nothing is built but the vocoder on onnx"):
            run(command, speaking, str(own))

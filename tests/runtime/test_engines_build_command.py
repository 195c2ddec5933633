"""`minicpmo engines plan`, `build` and `check`."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from minicpmo_ros.cli import app
from minicpmo_ros.errors import CheckpointError, ConfigError, EngineError
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.runtime import load
from minicpmo_ros.runtime.engines import commands, disk, recipe, room
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.check_command import check
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.export.calibration import write_npz
from minicpmo_ros.runtime.jobs import calibration_file
from minicpmo_ros.runtime.load import ensure, load_network
from minicpmo_ros.runtime.trt import card
from tests import built_network
from tests.runtime.outliers import conversations
from tests.runtime.quick_export import Writer, writer
from tests.runtime.trt.fake_cuda import FakeCuda

if TYPE_CHECKING:
    from minicpmo_ros.runtime.api import Network

__all__ = ["writer"]

GRAPHS = ["vision", "audio", "llm.00", "llm.01", "llm.head", "speech", "speech.head"]
TABLES = ["llm.tables", "speech.tables"]
SCALED = replace(built_network.recipe("cpu"), scaling="awq")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where engines lie."""
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture
def fp32(tmp_path: Path) -> str:
    return str(built_network.write_recipe(tmp_path / "fp32.yaml"))


@pytest.fixture
def engines_folder(engines: Path, built: Callable[[str], Network]) -> Path:
    built("fp32")
    return engines


def run(command: str, checkpoint: Path, recipe: str, *more: str) -> tuple[int, str]:
    words = ["engines", command, "--checkpoint", str(checkpoint), "--recipe", recipe, *more]
    result = CliRunner().invoke(app, words)
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def rows(text: str) -> dict[str, list[str]]:
    """Cells of a table's lines by the first of them."""
    found = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in found if cells}


def test_a_plan_says_what_is_to_be_written_and_begins_nothing(
    tiny_checkpoint: Path, folder: Path, fp32: str, writer: Writer
) -> None:
    code, text = run("plan", tiny_checkpoint, fp32)
    assert code == 0
    found = rows(text)
    assert set(found) == {"part", *GRAPHS, *TABLES}
    assert found["llm.00"] == ["onnxruntime", "fp32", "0.6 MB", "0.60 GB", ""]
    assert found["llm.tables"][:3] == ["numpy", "fp32", "0.5 MB"]
    assert re.search(rf"to write: \d\.\d MB in {folder}, .* free", " ".join(text.split()))
    assert "to build: 0.6" in text
    assert "8192 tokens of context 8.4 MB" in text
    assert writer.made == []
    assert {file.name for file in folder.rglob("*")} <= {"checkpoints.json"}


def test_a_plan_knows_what_is_built(
    tiny_checkpoint: Path, folder: Path, fp32: str, writer: Writer
) -> None:
    assert run("build", tiny_checkpoint, fp32)[0] == 0
    (audio,) = folder.glob("audio-*")
    shutil.rmtree(audio)
    code, text = run("plan", tiny_checkpoint, fp32)
    assert code == 0
    there = {name for name, cells in rows(text).items() if cells[-1] == "yes"}
    assert there == {*GRAPHS, *TABLES} - {"audio"}
    assert "to write: 1.0 MB" in text
    run("build", tiny_checkpoint, fp32)
    text = run("plan", tiny_checkpoint, fp32)[1]
    assert "to write: 0.0 kB" in text and "to build: 0.0 kB" in text


@pytest.mark.parametrize("name", ["rtx", "jetson_orin"])
def test_a_plan_for_another_machine_can_be_made_here(
    name: str, tiny_checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "_bindings", lambda: FakeCuda(devices=0))
    code, text = run("plan", tiny_checkpoint, name)
    assert code == 0
    assert rows(text)["llm.00"][1] == "int4"
    takes = re.search(r"to run: (.* GB) of card: weights", text)
    assert "where it will run is not known here (there is no NVIDIA card here" in text
    assert takes and f"it must have {takes[1]} free" in text


def test_a_plan_for_a_card_that_is_too_small_is_printed_and_fails(
    tiny_checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "_bindings", lambda: FakeCuda(total=35 * 10**7))
    words = ["engines", "plan", "--checkpoint", str(tiny_checkpoint), "--recipe", "rtx"]
    result = CliRunner().invoke(app, words)
    about = "there are 0.35 GB free of the 0.35 GB of Fake RTX 4090"
    assert "llm.turn" in rows(result.output) and f"for that, {about}" in result.output
    assert isinstance(result.exception, EngineError) and about in str(result.exception)


def test_a_plan_that_does_not_fit_is_printed_and_fails(
    tiny_checkpoint: Path, folder: Path, fp32: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "total_bytes", lambda: 10**8)
    words = ["engines", "plan", "--checkpoint", str(tiny_checkpoint), "--recipe", fp32]
    result = CliRunner().invoke(app, words)
    assert set(GRAPHS) < set(rows(result.output))
    assert isinstance(result.exception, EngineError)
    assert "there are 0.10 GB" in str(result.exception)


def test_a_build_says_where_it_is_and_how_large(
    tiny_checkpoint: Path, folder: Path, fp32: str, writer: Writer
) -> None:
    first = run("build", tiny_checkpoint, fp32)
    count = len(GRAPHS) + len(TABLES)
    assert sorted(writer.again()) == sorted([*GRAPHS, *TABLES])
    assert first[0] == 0
    assert re.search(rf"{count} files for fp32 in {folder}: \d+\.\d kB", first[1].replace("\n", ""))
    assert run("build", tiny_checkpoint, fp32) == first
    assert writer.again() == []


@pytest.mark.parametrize("command", ["plan", "build", "check"])
def test_what_is_of_no_use_is_told(
    command: str, tiny_checkpoint: Path, tmp_path: Path, folder: Path, fp32: str
) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\W.*(no such directory|no config\.json)"):
        run(command, tmp_path / "nowhere", fp32)
    with pytest.raises(ConfigError, match=r"recipe 'rxt' is unknown \(did you mean 'rtx'"):
        run(command, tiny_checkpoint, "rxt")
    torch = tmp_path / "own.yaml"
    torch.write_text("runtime: torch\nprecision: fp32\n")
    with pytest.raises(EngineError, match="'own' runs on torch, for which nothing is built"):
        run(command, tiny_checkpoint, str(torch))
    assert not folder.exists()


def test_recordings_for_a_recipe_that_does_not_calibrate_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, folder: Path, fp32: str, writer: Writer
) -> None:
    with pytest.raises(ConfigError, match="--bag has no effect: the recipe 'fp32' has 'scaling"):
        run("build", tiny_checkpoint, fp32, "--bag", str(tmp_path / "own.mcap"))
    assert writer.made == []


def test_named_recordings_are_calibrated_on_though_others_were(
    tiny_checkpoint: Path, folder: Path
) -> None:
    cache = EngineCache(folder)
    begun: list[str] = []

    def made_of(seed: int, **how: bool) -> str:
        found = commands.calibrated(
            tiny_checkpoint,
            SCALED,
            cache,
            lambda: conversations(Checkpoint(tiny_checkpoint), seed, (20,)),
            lambda what, share: begun.append(what),
            **how,
        )
        return found.made_of

    first = made_of(1)
    assert made_of(2) == first
    second = made_of(2, recorded=True)
    assert second != first
    begun.clear()
    assert made_of(2, recorded=True) == second
    assert "calibrating" not in begun


def test_of_two_that_calibrate_one_does_and_the_other_waits(
    tiny_checkpoint: Path, folder: Path
) -> None:
    cache, said, found = EngineCache(folder), Queue[str](), []

    def calibrate() -> None:
        found.append(
            commands.calibrated(
                tiny_checkpoint,
                SCALED,
                cache,
                lambda: conversations(Checkpoint(tiny_checkpoint), 1, (20,)),
                lambda what, share: said.put(what),
            )
        )

    mark = commands.checkpoint_fingerprint(tiny_checkpoint, cache, lambda what, share: None)
    with cache.alone(calibration_file(cache, mark).name, "calibrates", said.put):
        second = Thread(target=calibrate)
        second.start()
        while not (text := said.get(timeout=30)).startswith("waiting for"):
            assert text != "calibrating"
        assert text == f"waiting for process {os.getpid()}, which calibrates"
        assert found == []
    second.join(30)
    assert len(found) == 1


def test_a_calibration_for_which_there_is_no_room_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(out: object, **arrays: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(EngineError, match=r"scales\.npz cannot be written: No space left"):
        write_npz(tmp_path / "scales.npz", {"one": np.zeros(3)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacks", ["disk", "memory", "tensorrt", "onnxscript"])
def test_what_building_lacks_is_told_before_calibrating(
    lacks: str, tiny_checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = SCALED
    if lacks == "disk":
        monkeypatch.setattr(disk, "free_bytes", lambda folder: 1000)
    elif lacks == "memory":
        monkeypatch.setattr(load, "available_bytes", lambda: 10**8)
    elif lacks == "tensorrt":
        wanted = replace(recipe.load("jetson_orin"), scaling="awq")
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        monkeypatch.setattr("minicpmo_ros.runtime.trt.library._loaded", {})
    else:
        monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(recipe, "load", lambda name: wanted)

    def sequences() -> list:
        raise AssertionError("it would begin to calibrate")

    said = {"disk": "of disk, 1.0 kB are free", "memory": "of memory at once"}.get(lacks, lacks)
    with pytest.raises(EngineError, match=said):
        commands.build(tiny_checkpoint, "scaled", sequences)
    assert not list(folder.glob("calibration-*"))


def test_what_is_to_be_scaled_anew_needs_its_room_before_it_is_calibrated(
    tiny_checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is all built, scaled by what others gave; on the same it needs none."""
    checked: list[bool] = []
    monkeypatch.setattr(
        load, "check_ahead", lambda *given, calibrated, **more: checked.append(calibrated)
    )

    def calibrate(seed: int, **how: bool) -> None:
        commands.calibrated(
            tiny_checkpoint,
            SCALED,
            EngineCache(folder),
            lambda: conversations(Checkpoint(tiny_checkpoint), seed, (20,)),
            lambda what, share: None,
            **how,
        )

    calibrate(1)
    assert checked == [False]
    calibrate(1, recorded=True)
    assert checked == [False, True]
    calibrate(2, recorded=True)
    assert checked == [False, True, True, False]


def test_a_plan_tells_that_nothing_is_calibrated_and_what_is_built_all_the_same(
    tiny_checkpoint: Path, folder: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = replace(SCALED, scaling="none")
    ensure(tiny_checkpoint, plain, EngineCache(folder))
    texts = {}
    for wanted in (plain, SCALED):
        monkeypatch.setattr(recipe, "load", lambda name, wanted=wanted: wanted)
        texts[wanted.scaling] = run("plan", tiny_checkpoint, "any")[1]
    assert "not calibrated yet" in texts["awq"] and "not calibrated" not in texts["none"]
    there = {
        scaling: {name for name, cells in rows(text).items() if cells[-1] == "yes"}
        for scaling, text in texts.items()
    }
    assert there["none"] - there["awq"] == {"llm.00", "llm.head"}
    assert there["awq"] >= {"vision", "audio", *TABLES}


def test_check_tells_each_file_and_which_is_wrong(
    tiny_checkpoint: Path,
    engines_folder: Path,
    fp32: str,
    built: Callable[[str], Network],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    own = Path(shutil.copytree(engines_folder, tmp_path / "own"))
    monkeypatch.setenv("MINICPMO_ENGINES", str(own))
    code, text = run("check", tiny_checkpoint, fp32)
    assert code == 0
    found = rows(text)
    assert set(found) == {"part", *GRAPHS}
    assert found["llm.00"][:2] == ["onnxruntime", "fp32"]
    assert not any("!" in cell for cells in found.values() for cell in cells)

    files = ensure(tiny_checkpoint, built_network.recipe("fp32"), EngineCache(own))
    (head,) = (file for piece, file in files.items() if piece.name == "llm.head")
    weights = np.memmap(head.with_suffix(".bin"), np.float32, "r+")
    weights[:128] = 0
    weights.flush()
    code, text = run("check", tiny_checkpoint, fp32)
    assert code == 1
    assert [name for name, cells in rows(text).items() if cells[2].endswith("!")] == ["llm.head"]


def test_a_scaled_language_model_is_built_checked_and_runs(
    tiny_checkpoint: Path,
    built: Callable[[str], Network],
    engines_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only its layers differ from those that are rounded as they are, and its head, of which the
    rounding is chosen by what enters it."""
    built("cpu")
    own = Path(shutil.copytree(engines_folder, tmp_path / "own"))
    monkeypatch.setenv("MINICPMO_ENGINES", str(own))
    cache = EngineCache(own)
    plain = built_network.recipe("cpu")
    scaled: Recipe = replace(plain, scaling="awq")
    monkeypatch.setattr("minicpmo_ros.runtime.engines.recipe.load", lambda name: scaled)
    with pytest.raises(
        EngineError, match=r"calibration-.*is not there: run `minicpmo engines build"
    ):
        load_network(tiny_checkpoint, scaled, cache=cache)
    assert run("plan", tiny_checkpoint, "scaled")[0] == 0

    asked = []

    def sequences() -> list:
        asked.append(1)
        return conversations(Checkpoint(tiny_checkpoint), 1, (60,))

    commands.build(tiny_checkpoint, "scaled", sequences)
    commands.build(tiny_checkpoint, "scaled", sequences)
    assert asked == [1]
    files, before = (ensure(tiny_checkpoint, one, cache) for one in (scaled, plain))
    pairs = [
        (piece.name, file, other)
        for (piece, file), other in zip(files.items(), before.values(), strict=True)
    ]
    assert [name for name, file, other in pairs if file != other] == ["llm.00", "llm.head"]
    for _, file, other in pairs:
        if file != other:
            new, old = (one.with_suffix(".bin").read_bytes() for one in (file, other))
            assert len(new) == len(old) and new != old

    assert check(tiny_checkpoint, "scaled")
    network = load_network(tiny_checkpoint, scaled, cache=cache)
    assert np.isfinite(network.context(9).read([1, 2, 3])).all()

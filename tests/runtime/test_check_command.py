"""`minicpmo engines check` without a card, with a recording, and with a report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from minicpmo_ros.cli import app
from minicpmo_ros.errors import ConfigError, EngineError
from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.messages import NS_PER_S, AudioChunk
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.weight_files import SINGLE
from minicpmo_ros.replay.bag import BagWriter
from minicpmo_ros.runtime.engines import check_command, recipe
from minicpmo_ros.runtime.engines.check_room import check_checking_memory, checking_bytes
from minicpmo_ros.runtime.engines.pieces import pieces
from minicpmo_ros.topics import MIC
from tests.runtime.outliers import conversations
from tests.runtime.quick_export import Writer, writer
from tests.runtime.test_engines_build_command import GRAPHS, folder, rows
from tests.runtime.vocoders import write_assets

__all__ = ["folder", "writer"]

NO_CARD = "there is no card here"


@pytest.fixture
def cardless(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Also on a machine with one."""

    def runtime(name: str, threads: int = 0, device: str = "cpu") -> None:
        raise EngineError(NO_CARD)

    monkeypatch.setattr("minicpmo_ros.runtime.load.runtime", runtime)


@pytest.fixture
def small_eyes(own_checkpoint: Path) -> Path:
    """It looks at pictures as 56 x 56 pixels: that is quick."""
    settings = own_checkpoint / "preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"scale_resolution": 56}))
    return own_checkpoint


def run(checkpoint: Path, name: str, *more: str) -> tuple[int, str]:
    words = ["engines", "check", "--checkpoint", str(checkpoint), "--recipe", name, *more]
    result = CliRunner().invoke(app, words)
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.usefixtures("no_card")
def test_where_there_is_no_card_torch_alone_is_run(
    small_eyes: Path, folder: Path, writer: Writer
) -> None:
    code, text = run(small_eyes, "rtx")
    assert code == 0
    assert "WHAT IS BUILT FOR rtx WAS NOT RUN, torch alone was: " in text
    found = rows(text)
    assert set(found) == {"part", "llm.turn", *GRAPHS} - {"llm.01"}
    assert all(cells[2] == cells[4] == "not run" for name, cells in found.items() if name != "part")
    assert float(found["llm.00"][3]) > 0.01 and float(found["vision"][3]) == 0
    assert writer.made == []


@pytest.mark.usefixtures("cardless")
def test_an_overflow_is_found_without_a_card(small_eyes: Path) -> None:
    file = small_eyes / SINGLE
    weights = load_file(file)
    weights["vpm.encoder.layers.0.mlp.fc2.bias"][0] = 1e5
    save_file(weights, file)
    code, text = run(small_eyes, "jetson_thor")
    assert code == 1
    assert [name for name, cells in rows(text).items() if cells[-1].endswith("!")] == ["vision"]
    assert "the weights" not in text and NO_CARD in text


@pytest.mark.usefixtures("cardless")
def test_a_vocoder_is_checked_without_a_card_too(small_eyes: Path) -> None:
    write_assets(small_eyes)
    code, text = run(small_eyes, "rtx")
    found = rows(text)
    for name in ("flow.encoder", "flow.estimator", "hift"):
        assert found[name][2] == found[name][4] == "not run"
        assert float(found[name][3]) == 0 < float(found[name][5])
    assert code == 0


@pytest.mark.usefixtures("cardless")
def test_what_is_missing_for_a_cpu_is_an_error(small_eyes: Path) -> None:
    with pytest.raises(EngineError, match=NO_CARD):
        run(small_eyes, "cpu")


def write_bag(path: Path) -> Path:
    random = np.random.default_rng(1)
    with BagWriter(path) as bag:
        for i in range(20):
            at_ns = NS_PER_S * (1_700_000_000 * 10 + i) // 10
            picture = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            bag.write_jpeg(at_ns, at_ns, encode_jpeg(picture))
            sound = random.normal(0, 800, 1600).astype(np.int16)
            bag.write(MIC, at_ns + NS_PER_S // 10, AudioChunk(at_ns, sound, 16_000, i))
    return path


@pytest.mark.usefixtures("cardless")
def test_a_recording_is_read_once_for_input_and_report(
    small_eyes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minicpmo_ros.replay import calibration

    asked = []
    made = calibration.recorded_inputs

    def recorded_inputs(*args: Any) -> Any:
        asked.append(args)
        return made(*args)

    monkeypatch.setattr(calibration, "recorded_inputs", recorded_inputs)
    figures = tmp_path / "figures.json"
    bag = write_bag(tmp_path / "bag")
    more = ["--bag", str(bag), "--report", "--json", str(figures)]
    code, text = run(small_eyes, "rtx", *more)
    assert code == 0 and len(asked) == 1
    assert "input: of each of 1 recordings" in text and str(figures) in text
    content = json.loads(figures.read_text())
    assert content["ran"] is False and content["not_run_because"] == NO_CARD
    files = {one["name"]: one for one in content["files"]}
    assert set(files) == {"llm.turn", *GRAPHS} - {"llm.01"}
    assert files["llm.00"]["runtime"] is None and files["llm.00"]["with_rounding"] > 0
    assert content["report"]["decisions"] == 2
    (error,) = content["report"]["errors"]
    layers = Checkpoint(small_eyes).config.llm.layers
    assert len(error["own"]) == len(error["so_far"]) == layers
    assert {"kl_mean", "kl_p99", "same_token", "same_decision", "listen_change"} < set(error)


def reported(checkpoint: Path, wanted: recipe.Recipe) -> dict[str, Any]:
    def sequences() -> list:
        return conversations(Checkpoint(checkpoint), 1, (60,))

    one = check_command._Check(
        checkpoint, wanted, lambda what, share: None, lambda text: None, runs=False
    )
    (error,) = one.report(sequences).errors
    return {"name": error.name, "kl": error.kl_mean, "own": error.own}


def test_a_report_rounds_as_the_recipe_does(tiny_checkpoint: Path, folder: Path) -> None:
    """Heads of four bits, eight and sixteen behind the same layers, and layers of sixteen."""
    names = {"jetson_thor": "int4", "nano": "int8", "rtx": "fp16"}
    found = {name: reported(tiny_checkpoint, recipe.load(name)) for name in names}
    for name, head in names.items():
        assert found[name]["name"] == f"int4, head {head}"
        assert found[name]["own"] == found["rtx"]["own"]
    four, eight, half_head = (found[name]["kl"] for name in names)
    assert four > 1.02 * half_head
    assert 0 < abs(eight - half_head) < 0.1 * (four - half_head)
    plain = replace(recipe.load("rtx"), llm=recipe.LlmRecipe("tensorrt_rtx", "fp16"))
    half = reported(tiny_checkpoint, plain)
    assert half["name"] == "fp16, head fp16"
    assert half["kl"] < 0.01 * found["rtx"]["kl"]
    assert 0 < max(half["own"]) < 0.01 * max(found["rtx"]["own"])


def test_a_file_without_a_folder_is_told_before_anything_is_done(
    small_eyes: Path, tmp_path: Path, folder: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--json .*: there is no directory .*nowhere"):
        run(small_eyes, "cpu", "--json", str(tmp_path / "nowhere" / "figures.json"))
    assert not folder.exists()


def test_memory_is_asked_for_first(
    small_eyes: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_command, "available_bytes", lambda: 10**8)
    with pytest.raises(EngineError, match=r"checking \S+ takes 0\.6\d GB of memory, 0\.10 GB are"):
        run(small_eyes, "cpu")
    assert not list(folder.glob("*-*"))


def test_a_check_takes_its_largest_file_in_single_precision(tiny_checkpoint: Path) -> None:
    config = Checkpoint(tiny_checkpoint).config
    wanted = recipe.load("cpu")
    check_checking_memory(pieces(config, wanted), config, 0)  # nobody knows what is free
    by_name = {one.name: checking_bytes(one, config) for one in pieces(config, wanted)}
    head = config.llm.hidden * config.llm.vocab
    assert 5 * head <= by_name["llm.head"] - 600 * 10**6 < 6 * head

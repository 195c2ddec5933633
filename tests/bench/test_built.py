"""`minicpmo bench engines --recipe NAME`: engines, on a card that onnxruntime plays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the network needs the extra model")
pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")

from minicpmo_ros.bench import built, card, stages  # noqa: E402
from minicpmo_ros.errors import ConfigError, EngineError  # noqa: E402
from minicpmo_ros.model.config import ModelConfig  # noqa: E402
from minicpmo_ros.model.tiny import config_json  # noqa: E402
from minicpmo_ros.runtime.engines import disk, recipe  # noqa: E402
from minicpmo_ros.runtime.engines.pieces import Piece  # noqa: E402
from minicpmo_ros.runtime.trt import jobs  # noqa: E402
from minicpmo_ros.runtime.trt.card import Card  # noqa: E402
from minicpmo_ros.runtime.trt.library import Library  # noqa: E402
from tests.runtime.trt.fake_cuda import FakeCuda  # noqa: E402
from tests.runtime.trt.fake_trt import fake_module, write_engine  # noqa: E402

pytestmark = pytest.mark.timeout(300)  # graphs are traced, beside others
VOCAB = 2048
UNITS = 9
RECIPE = """
description: the imitated card
runtime: tensorrt_rtx
precision: fp16
targets: [sm89]
vision: {patches: [1100]}
llm: {layers_per_file: 1, prefill: 64}
kv_capacity: 2048
window: {kind: "off"}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "small.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def machine() -> Iterator[FakeCuda]:
    cuda = FakeCuda()
    library = Library("tensorrt_rtx", fake_module(cuda))

    def build(library: Library, onnx_file: Path, engine: Path, profiles: Any, **how: Any) -> None:
        write_engine(engine, onnx_file, profiles)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "library", lambda name: library)
        patch.setattr(jobs, "Card", lambda: Card(cuda=cuda))
        patch.setattr(jobs, "build", build)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield cuda


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return ModelConfig.from_json(config_json("tiny", VOCAB))


@pytest.fixture(scope="module")
def files(
    machine: FakeCuda,
    config: ModelConfig,
    small: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[Piece, Path]:
    told: list[str] = []
    folder = tmp_path_factory.mktemp("random")
    found = built.random_files(
        config, recipe.load(str(small)), folder, lambda what, share: told.append(what)
    )
    assert {"vision", "llm.00", "llm.01", "speech"} <= set(told)
    return found


@pytest.fixture
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.repeat, "__defaults__", (0.0,))
    monkeypatch.setattr(card, "UNITS", UNITS)


PROMISED = {"token_ms", "prefill_ms", "vision_ms", "audio_ms", "unit_listen_ms", "unit_speak_ms"}
PROMISED |= {"loading_s", "peak_gb", "tokens_per_s", "rtf"}


@pytest.mark.usefixtures("_in_a_hurry")
def test_engines_of_a_recipe_are_measured_on_its_card(
    files: dict[Piece, Path],
    config: ModelConfig,
    small: Path,
    machine: FakeCuda,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(built, "config_json", lambda size: config_json(size, VOCAB))
    monkeypatch.setattr(built, "random_files", lambda *given: files)
    assert {file.suffix for piece, file in files.items() if not piece.is_table} == {".engine"}
    out, before = tmp_path / "figures.json", machine.free
    built.bench(str(small), "tiny", json=out)
    found = json.loads(out.read_text())
    figures = {name.removeprefix("engines.tiny.small."): n for name, n in found["figures"].items()}
    assert figures.keys() >= PROMISED
    assert all(figures[name] > 0 for name in PROMISED)
    # The units' context was on the card, in half precision; weights are not on this one.
    kv = config.llm.kv_values_per_token * UNITS * 64 * 2
    assert kv / 1e9 < figures["peak_gb"] < before / 1e9
    # This torch does not reach the card's memory, so that nothing can be said of its speed.
    assert not {"read_ms", "share_of_memory_speed"} & figures.keys()
    assert found["machine"]["conditions"]["runtimes"] == "tensorrt_rtx"
    assert found["machine"]["conditions"]["network"] == "random, tiny"


@pytest.mark.usefixtures("_in_a_hurry")
def test_the_engines_of_a_checkpoint_are_those_that_are_kept(
    files: dict[Piece, Path],
    config: ModelConfig,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Path] = []

    def kept(directory: Path, *given: Any) -> dict[Piece, Path]:
        asked.append(directory)
        return files

    monkeypatch.setattr(built, "ensure", kept)
    monkeypatch.setattr(built.ModelConfig, "load", lambda directory: config)
    out = tmp_path / "figures.json"
    built.bench(str(small), checkpoint=tmp_path, json=out)
    found = json.loads(out.read_text())
    assert asked == [tmp_path]
    assert {f"engines.small.{name}" for name in PROMISED} <= found["figures"].keys()
    assert found["machine"]["conditions"]["network"] == str(tmp_path)


def test_what_it_cannot_measure_is_said_before_anything_is_begun(
    machine: FakeCuda, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object) -> None:
        raise AssertionError("something was begun")

    monkeypatch.setattr(built, "write_piece", never)
    (tmp_path / "slow.yaml").write_text("runtime: torch\nprecision: fp32\n")
    with pytest.raises(ConfigError, match=r"'slow' runs in torch.*minicpmo bench model"):
        built.bench(str(tmp_path / "slow.yaml"))
    (tmp_path / "short.yaml").write_text(RECIPE.replace("2048", "1024"))
    with pytest.raises(ConfigError, match=r"kv_capacity of 1024 has no room.* 2048 tokens"):
        built.bench(str(tmp_path / "short.yaml"))
    with pytest.raises(ConfigError, match="size 'huge': there are tiny, wide, quarter, full"):
        built.bench(str(small), "huge")
    with pytest.raises(ConfigError, match="nowhere: there is no such directory"):
        built.bench(str(small), checkpoint=tmp_path / "nowhere")
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 10**9)
    with pytest.raises(EngineError, match="the random network needs"):
        built.bench(str(small), "full")
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 10**12)
    monkeypatch.setattr(built, "available_bytes", lambda: 10**9)
    with pytest.raises(EngineError, match=r"random network takes .* GB of memory, 1\.0 GB are"):
        built.bench(str(small), "full")

"""The recipe rtx for all of its own cards in one build, at a small size and without a card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
pytest.importorskip("tensorrt_rtx", reason="building engines needs the extra rtx")
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tiny import config_json, write_checkpoint
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.planning import planned
from minicpmo_ros.runtime.engines.recipe import load
from minicpmo_ros.runtime.jobs import jobs
from minicpmo_ros.runtime.load import ensure
from minicpmo_ros.runtime.trt import card
from minicpmo_ros.runtime.trt import jobs as engine_jobs
from minicpmo_ros.runtime.trt.builder import CODE_BYTES
from tests.runtime.trt.fake_cuda import FakeCuda

# One layer of each kind.
SIZES = config_json("tiny", 1024) | {"num_hidden_layers": 1}
SIZES["vision_config"]["num_hidden_layers"] = 1
SIZES["audio_config"]["encoder_layers"] = 1
SIZES["tts_config"] |= {"num_hidden_layers": 1}


@pytest.mark.timeout(300)  # 30 s alone; beside others longer
def test_a_recipes_own_targets_are_built_together_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = load("rtx")
    assert len(wanted.targets) == 3
    monkeypatch.setattr(card, "_bindings", lambda: FakeCuda(devices=0))
    checkpoint = write_checkpoint(tmp_path / "checkpoint", size=SIZES)
    config = ModelConfig.load(checkpoint)
    cache = EngineCache(tmp_path / "engines")
    told: list[tuple[str, float]] = []
    files = ensure(checkpoint, wanted, cache, lambda *step: told.append(step))
    engines = [entry for entry in cache.entries() if entry.key.runtime == "tensorrt_rtx"]
    graphs = {piece.name for piece in files if not piece.is_table}
    assert {entry.key.stage for entry in engines} == graphs >= {"vision", "llm.00", "llm.turn"}
    assert {entry.key.target for entry in engines} == {"sm86+sm89+sm120"}

    shares = [share for _, share in told]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    for name in graphs:  # not only from graph to engine: while each is made
        assert len({share for what, share in told if what == f"building {name}"}) > 10, name

    taken = sum(file.stat().st_size for file in cache.folder.rglob("*") if file.is_file())
    plan = planned(config, wanted, set())
    assert plan.disk < taken < plan.disk + len(engines) * CODE_BYTES

    def again(*given: Any, **how: Any) -> None:
        raise AssertionError("it was built already")

    monkeypatch.setattr(engine_jobs, "build", again)
    assert ensure(checkpoint, wanted, cache) == files
    # For one of them alone, they are other engines, and the graphs are the same.
    mark = engines[0].key.checkpoint
    there = {entry.name for entry in cache.entries()}
    single = jobs(checkpoint, mark, config, replace(wanted, targets=("sm89",)), cache)
    missing = {job.key.target for _, job in single if job.key.name not in there}
    assert missing == {"sm89"}

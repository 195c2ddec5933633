"""The vocoder's stages are really parsed and built by TensorRT-RTX, which needs no card for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
pytest.importorskip("tensorrt_rtx", reason="building engines needs the extra rtx")
from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.flow.tiny import TINY
from minicpmo_ros.runtime.engines.build import write_piece
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.pieces import GRAPH_FILE, vocoder_pieces
from minicpmo_ros.runtime.engines.recipe import load
from minicpmo_ros.runtime.export.vocoder_weights import sized
from minicpmo_ros.runtime.trt import jobs, library
from minicpmo_ros.runtime.trt.builder import build
from minicpmo_ros.runtime.trt.profiles import vocoder_profiles
from tests.runtime.vocoders import HIFT


@pytest.mark.parametrize("number", [0, 1, 3], ids=["flow.encoder", "flow.estimator", "hift"])
def test_every_stage_of_a_vocoder_is_built(number: int, tmp_path: Path) -> None:
    rtx = library.library("tensorrt_rtx")
    config = sized(TINY, HIFT)
    piece = vocoder_pieces(load("rtx"))[number]
    assert piece.dtype == ("float32" if piece.name == "hift" else "float16")
    random = np.random.default_rng(0)

    def read(name: str) -> np.ndarray:
        return random.standard_normal(config.shapes[name], dtype=np.float32) * 0.05

    write_piece(read, config, piece, tmp_path)
    file, engine = tmp_path / GRAPH_FILE, tmp_path / "stage.engine"
    profiles = vocoder_profiles(piece.name, TINY)
    exact = piece.dtype == "float32"
    built = build(rtx, file, engine, profiles, targets=("sm86", "sm120"), exact=exact)
    assert built.nbytes == engine.stat().st_size > file.with_suffix(".bin").stat().st_size
    with pytest.raises(EngineError, match="of any size, and the profile gives patches"):
        build(rtx, file, engine, [{"patches": (1, 2, 3)}])


def test_phases_are_not_summed_of_rounded_pitches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what has single precision, products have it as well."""
    config, recipe = sized(TINY, HIFT), load("rtx")
    asked: dict[str, bool] = {}

    def noted(*given: object, exact: bool, **how: object) -> None:
        asked[str(given[1])] = exact

    monkeypatch.setattr(jobs, "build", noted)
    cache = EngineCache(tmp_path)
    for piece in vocoder_pieces(recipe):
        graph = cache.folder / piece.name
        found = SimpleNamespace(folder=graph)
        monkeypatch.setattr(EngineCache, "find", lambda self, key, found=found: found)
        if not piece.is_table:
            jobs.engine_job(piece, "mark", config, recipe, cache).make(tmp_path, lambda share: None)
    assert {Path(file).parent.name: exact for file, exact in asked.items()} == {
        "flow.encoder": False,
        "flow.estimator": False,
        "hift": True,
    }

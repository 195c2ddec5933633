"""The vocoder's stages are really parsed and built by TensorRT-RTX, which needs no card for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
pytest.importorskip("tensorrt_rtx", reason="building engines needs the extra rtx")
from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.flow.tiny import TINY
from minicpmo_ros.runtime.engines.build import write_piece
from minicpmo_ros.runtime.engines.pieces import GRAPH_FILE, vocoder_pieces
from minicpmo_ros.runtime.engines.recipe import load
from minicpmo_ros.runtime.export.vocoder_weights import sized
from minicpmo_ros.runtime.trt import library
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
    built = build(rtx, file, engine, profiles, targets=("sm86", "sm120"))
    assert built.nbytes == engine.stat().st_size > file.with_suffix(".bin").stat().st_size
    with pytest.raises(EngineError, match="of any size, and the profile gives patches"):
        build(rtx, file, engine, [{"patches": (1, 2, 3)}])

"""Matrices that are to have few bits, and that blocks of 128 do not divide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
from minicpmo_ros.model.config import ModelConfig  # noqa: E402
from minicpmo_ros.runtime.engines import recipe  # noqa: E402
from minicpmo_ros.runtime.engines.pieces import pieces  # noqa: E402
from minicpmo_ros.runtime.export.plans import head_plan  # noqa: E402
from minicpmo_ros.runtime.export.writer import export  # noqa: E402
from minicpmo_ros.runtime.ort.stages import OrtStage  # noqa: E402
from tests.nano_network import nano_json  # noqa: E402

VOCAB = 96


def head(folder: Path, width: int, precision: str) -> tuple[Path, np.ndarray]:
    weights = np.random.default_rng(0).standard_normal((VOCAB, width)).astype(np.float32)
    plan = head_plan(width, VOCAB, precision=precision)
    export(plan, lambda name: weights, folder / "head.onnx")
    return folder / "head.onnx", weights


@pytest.mark.parametrize(
    ("width", "precision", "bytes_each"),
    [
        (96, "int8", 2),
        (160, "int8", 2),
        (192, "int4", 2),
        (160, "fp32", 4),
        (256, "int8", 1 + 4 / 128),
        (256, "int4", 0.5 + 4 / 128),
    ],
)
def test_they_take_two_bytes_in_the_file(
    width: int, precision: str, bytes_each: float, tmp_path: Path
) -> None:
    file, weights = head(tmp_path, width, precision)
    size = file.with_suffix(".bin").stat().st_size
    assert 0 <= size - weights.size * bytes_each <= 4096


@pytest.mark.parametrize("width", [96, 160, 192])
def test_only_the_weights_are_rounded(width: int, tmp_path: Path) -> None:
    file, weights = head(tmp_path, width, "int8")
    hidden = np.random.default_rng(1).standard_normal((5, width)).astype(np.float32)
    (found,) = OrtStage(file, threads=1).run({"hidden": hidden})
    rounded = weights.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(found, hidden @ rounded.T, rtol=1e-5, atol=1e-4)
    assert not np.allclose(found, hidden @ weights.T, rtol=1e-5, atol=1e-4)


def test_encoders_of_the_nano_recipe_take_at_most_half_of_their_bytes() -> None:
    """Tables of positions, convolutions and norms stay as they are."""
    config = ModelConfig.from_json(nano_json())
    plain = {one.name: one for one in pieces(config, recipe.of({"precision": "fp32"}))}
    for piece in pieces(config, recipe.load("nano")):
        if piece.name in ("vision", "audio"):
            matrices = [
                key
                for key in piece.names(config)
                if key.endswith("_proj.weight") or (".fc" in key and key.endswith("weight"))
            ]
            assert matrices
            saved = plain[piece.name].nbytes(config) - piece.nbytes(config)
            count = sum(int(np.prod(_shape(config, key))) for key in matrices)
            assert saved >= 2 * count


def _shape(config: ModelConfig, key: str) -> tuple[int, ...]:
    from minicpmo_ros.model.layout import shapes

    return shapes(config)[key]


def test_a_check_reckons_with_the_same_rounding() -> None:
    from minicpmo_ros.model.layout import shapes
    from minicpmo_ros.runtime.engines.torch_stage import TorchStage, unknown

    config = ModelConfig.from_json(nano_json())
    known = shapes(config)

    def read(name: str) -> np.ndarray:
        return np.random.default_rng(len(name)).standard_normal(known[name]).astype(np.float32)

    (audio,) = (one for one in pieces(config, recipe.load("nano")) if one.name == "audio")
    name = "apm.layers.0.self_attn.q_proj.weight"
    for importance, same in ((unknown, True), (None, False)):
        stage = TorchStage(audio, config, read, importance).stage
        found = stage.get_parameter(f"audio.{name}").detach().numpy()
        assert np.array_equal(found, read(name).astype(np.float16)) is same

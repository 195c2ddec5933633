"""Every stage of every recipe for TensorRT is really parsed and built, at small sizes, by
TensorRT-RTX, which needs no card for it. Which those are is asked of the recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
pytest.importorskip("tensorrt_rtx", reason="building engines needs the extra rtx")
from minicpmo_ros.model.config import ModelConfig  # noqa: E402
from minicpmo_ros.model.tiny import config_json, write_checkpoint  # noqa: E402
from minicpmo_ros.runtime.engines.build import make_piece  # noqa: E402
from minicpmo_ros.runtime.engines.pieces import ENGINE_FILE, GRAPH_FILE, Piece, pieces  # noqa: E402
from minicpmo_ros.runtime.engines.recipe import Recipe, load, names  # noqa: E402
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT  # noqa: E402
from minicpmo_ros.runtime.int4 import BLOCK  # noqa: E402
from minicpmo_ros.runtime.trt import library  # noqa: E402
from minicpmo_ros.runtime.trt.builder import build  # noqa: E402
from minicpmo_ros.runtime.trt.jobs import profiles  # noqa: E402
from minicpmo_ros.runtime.trt.profiles import Profile  # noqa: E402

# One layer of each kind. Blocks divide what speech multiplies, as at the published sizes.
SIZES = config_json("tiny", 1024) | {"num_hidden_layers": 1}
SIZES["vision_config"]["num_hidden_layers"] = 1
SIZES["audio_config"]["encoder_layers"] = 1
SIZES["tts_config"] |= {"num_hidden_layers": 1, "hidden_size": 128, "intermediate_size": 256}
CONFIG = ModelConfig.from_json(SIZES)


def recipes() -> Iterator[Recipe]:
    """Those that come with the package, and one with as few bits as TensorRT takes anywhere."""
    shipped = [load(name) for name in names()]
    for recipe in shipped:
        if recipe.runtimes & set(TENSORRT):
            yield recipe
    rtx = load("rtx")
    few = {"precision": "int4", "head": "int4"}
    yield replace(rtx, llm=replace(rtx.llm, **few), speech=replace(rtx.speech, **few))


def stages() -> dict[str, tuple[Piece, list[Profile]]]:
    """Each graph with the sizes it is built for; once, where several recipes have the same."""
    found: dict[tuple[str, str, str], tuple[Piece, list[Profile]]] = {}
    for recipe in recipes():
        for piece in pieces(CONFIG, recipe):
            if not piece.is_table:
                wanted = profiles(piece, CONFIG, recipe)
                key = piece.name, piece.precision, json.dumps(wanted)
                found.setdefault(key, (piece, wanted))
    # Sorted, so that a decoder's precisions follow each other: it is traced once.
    ordered = [found[key] for key in sorted(found)]
    return {f"{n}-{one[0].name}-{one[0].precision}": one for n, one in enumerate(ordered)}


STAGES = stages()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("stages") / "checkpoint", size=SIZES)


def test_four_bits_are_among_what_is_built_everywhere_they_may_be() -> None:
    packed = {piece.name for piece, _ in STAGES.values() if piece.precision == "int4"}
    assert packed == {"llm.00", "llm.head", "speech", "speech.head"}
    assert {recipe.name for recipe in recipes()} >= {"rtx", "jetson_orin", "jetson_thor"}


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_of_a_network_is_built(name: str, checkpoint: Path, tmp_path: Path) -> None:
    piece, wanted = STAGES[name]
    make_piece(checkpoint, piece, tmp_path)
    file, engine = tmp_path / GRAPH_FILE, tmp_path / ENGINE_FILE
    rtx = library.library("tensorrt_rtx")
    shares: list[float] = []
    built = build(rtx, file, engine, wanted, targets=("sm86",), progress=shares.append)
    assert built.nbytes == engine.stat().st_size > file.with_suffix(".bin").stat().st_size
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(set(shares)) > 10
    assert not list(tmp_path.glob("*.part"))
    codes = codes_of(file)
    assert bool(codes) == (piece.precision == "int4")
    content = engine.read_bytes()
    for matrix, (packed, values, scales) in codes.items():
        assert content.count(packed) == 1, f"the four bits of {matrix} are not in the engine"
        plain = values * scales.repeat(BLOCK, axis=0)
        for kind in (values, plain.astype(np.float16), plain.astype(np.float32)):
            for unpacked in (kind, kind.T):  # no part of it either, in whichever order
                piece_of_it = np.ascontiguousarray(unpacked[:2]).tobytes()
                assert piece_of_it not in content, f"{matrix} is there unpacked as {kind.dtype}"


def codes_of(file: Path) -> dict[str, tuple[bytes, np.ndarray, np.ndarray]]:
    """Of each matrix of four bits: as it lies in the file; int8 [inputs, outputs]; its scales."""
    graph = onnx.load(file).graph
    tensors = {one.name: one for one in graph.initializer}
    found = {}
    for name, one in tensors.items():
        if one.data_type == onnx.TensorProto.INT4:
            scales = onnx.numpy_helper.to_array(tensors[name.removesuffix("codes") + "scales"])
            values = onnx.numpy_helper.to_array(one).astype(np.int8)
            found[name] = one.raw_data, values, scales.astype(np.float32)
    return found

"""What a recipe is said to take before anything is begun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tiny import SIZES, config_json
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.pieces import Piece, groups, pieces
from minicpmo_ros.runtime.engines.planning import planned, run_memory
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.int4 import BLOCK, can_quantise
from minicpmo_ros.runtime.tables import write_table
from tests import built_network

if TYPE_CHECKING:
    from minicpmo_ros.runtime.api import Network

GB = 10**9


@cache
def config(size: str = "full") -> ModelConfig:
    return ModelConfig.from_json(config_json(size))


def weights_in_graph(piece: Piece, sizes: ModelConfig) -> int:
    """Bytes of all weights of the stage that is exported, in the precision that each gets."""
    plans = pytest.importorskip(
        "minicpmo_ros.runtime.export.plans", reason="graphs need the extra export"
    )
    import torch

    plan = plans.plan(piece, sizes)
    with torch.device("meta"):
        state = plan.make().state_dict()
    width = 2 if plan.dtype == "float16" else 4
    total = 0
    for name, tensor in state.items():
        shape = tuple(tensor.shape)
        bits = plan.bits(name) if can_quantise(shape) else 0
        blocks = tensor.numel() // BLOCK
        plain = 2 if plan.lies_in_half(name, shape) else width
        total += tensor.numel() * bits // 8 + blocks * width if bits else tensor.numel() * plain
    return total


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("size", SIZES)
def test_the_bytes_of_graphs_are_known_without_them(size: str, precision: str, dtype: str) -> None:
    sizes = config(size)
    for piece in pieces(sizes, recipe.of({"precision": "int8"})):
        if piece.is_table:
            continue
        one = replace(piece, precision=precision, dtype=dtype)
        assert one.nbytes(sizes) == pytest.approx(weights_in_graph(one, sizes), rel=1e-3), one


@pytest.mark.parametrize("name", ["fp32", "cpu"])
def test_the_bytes_of_files_are_known_before_they_are_built(
    name: str, tiny_checkpoint: Path, engines: Path, built: Callable[[str], Network]
) -> None:
    """But for the graphs, and what weights are apart from each other to begin at pages."""
    from minicpmo_ros.runtime.export.writer import ALIGNMENT
    from minicpmo_ros.runtime.load import ensure

    built(name)
    wanted = built_network.recipe(name)
    sizes = ModelConfig.load(tiny_checkpoint)
    for piece, file in ensure(tiny_checkpoint, wanted, EngineCache(engines)).items():
        said = piece.nbytes(sizes)
        if piece.is_table:
            real = sum(one.stat().st_size for one in file.glob("*.np*"))
            assert said == pytest.approx(real, rel=0.02), piece
        else:
            real = file.with_suffix(".bin").stat().st_size
            parts = 2 * len(piece.names(sizes))  # codes and scales
            assert 0.999 * said <= real <= 1.001 * said + parts * ALIGNMENT, piece


@settings(max_examples=12)
@given(
    st.integers(1, 300),
    st.sampled_from([64, 128, 192, 256]),
    st.sampled_from(["fp32", "fp16", "int8", "int4"]),
)
def test_the_bytes_of_tables_are_known(
    tmp_path_factory: pytest.TempPathFactory, vocab: int, speech: int, precision: str
) -> None:
    sizes = config("tiny")
    own = {"text_vocab": vocab, "codes": vocab + 7, "audio_bos": 0, "text_eos": 0}
    sizes = replace(
        sizes,
        llm=replace(sizes.llm, vocab=vocab),
        speech=replace(sizes.speech, hidden=speech, **own),
    )
    folder = tmp_path_factory.mktemp("table")
    piece = Piece("llm.tables", "", precision)
    write_table(folder, "tokens", np.zeros((vocab, sizes.llm.hidden), np.float32), precision)
    real = sum(file.stat().st_size for file in folder.iterdir())
    assert real - 2 * 128 <= piece.nbytes(sizes) <= real
    piece = Piece("speech.tables", "", precision)
    inner = (sizes.llm.hidden + speech + 2) * speech * 4  # both layers of the projector
    folder = tmp_path_factory.mktemp("table")
    for name, count in (("text", sizes.speech.text_vocab), ("codes", sizes.speech.codes)):
        write_table(folder, name, np.zeros((count, speech), np.float32), precision)
    real = sum(file.stat().st_size for file in folder.iterdir()) + inner
    assert real - 4 * 128 <= piece.nbytes(sizes) <= real


@given(st.integers(1, 100), st.integers(1, 128))
def test_layers_are_in_one_file_each_and_in_order(layers: int, per_file: int) -> None:
    found = list(groups(layers, per_file))
    assert [n for start, stop in found for n in range(start, stop)] == list(range(layers))
    assert max(stop - start for start, stop in found) <= per_file


@settings(max_examples=15)
@given(st.integers(1, 40))
def test_every_weight_is_in_one_piece(per_file: int) -> None:
    from minicpmo_ros.model.layout import is_unused, shapes

    sizes = config()
    found = recipe.of({"precision": "int8", "llm": {"layers_per_file": per_file}})
    names = [name for piece in pieces(sizes, found) for name in piece.names(sizes)]
    assert sorted(names) == sorted(key for key in shapes(sizes) if not is_unused(key))


def test_what_is_built_needs_no_disk_and_no_memory_to_build() -> None:
    sizes, cpu = config("tiny"), recipe.load("cpu")
    everything = {piece.name for piece in pieces(sizes, cpu)}
    none = planned(sizes, cpu, set())
    but_head = planned(sizes, cpu, everything - {"llm.head"})
    (head,) = (one for one in none.pieces if one.piece.name == "llm.head")
    assert (but_head.disk, but_head.build_memory) == (head.nbytes, head.memory)
    done = planned(sizes, cpu, everything)
    assert (done.disk, done.build_memory) == (0, 0)
    assert none.disk == sum(one.nbytes for one in none.pieces)


def test_an_engine_takes_as_much_again_as_its_graph() -> None:
    rtx = recipe.load("rtx")
    found = {one.piece.name: one for one in planned(config(), rtx, set()).pieces}
    piece = found["llm.00"].piece
    assert found["llm.00"].nbytes == 2 * piece.nbytes(config())
    tables = found["llm.tables"]
    assert tables.nbytes == tables.piece.nbytes(config())


def test_the_published_network_fits_where_the_recipes_say() -> None:
    """8 GB for 4,096 tokens on a CPU; cards of 12 GB."""
    cpu = run_memory(config(), recipe.load("cpu"), 4096)
    assert (cpu.where, cpu.kv_tokens) == ("memory", 4096)
    assert 6 * GB < cpu.total <= 8 * GB
    card = run_memory(config(), recipe.load("rtx"))
    assert (card.where, card.kv_tokens) == ("card", 8192)
    assert 7 * GB < card.total < 12 * GB


@settings(max_examples=15)
@given(st.integers(128, 10**6))
def test_caches_take_what_their_tokens_take(tokens: int) -> None:
    sizes = config()
    window = {"high": 100, "low": 50}
    found = recipe.of({"precision": "int8", "kv_capacity": 128, "window": window})
    need = run_memory(sizes, found, tokens)
    assert need.kv == 36 * 2 * 8 * 128 * 4 * tokens
    assert need.total == need.weights + need.kv + need.sound + need.work
    assert run_memory(sizes, found).kv_tokens == 128


def test_building_the_published_network_takes_no_more_than_six_gigabytes() -> None:
    found: Recipe = recipe.load("cpu")
    assert 4 * GB < planned(config(), found, set()).build_memory <= 6 * GB

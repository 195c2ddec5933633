"""Too little memory is told before anything is begun, with what would fit."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.flow.tiny import TINY
from minicpmo_ros.model.tiny import config_json
from minicpmo_ros.runtime import load, vocoder_load
from minicpmo_ros.runtime.engines import recipe, room
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.planning import planned, run_memory, vocoder_memory
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.engines.room import LEAST_CAPACITY, STEP, Room, check_memory, room_for
from minicpmo_ros.runtime.export.vocoder_weights import sized
from minicpmo_ros.runtime.torch_runtime import as_it_runs
from minicpmo_ros.runtime.trt import card
from tests import built_network
from tests.runtime.quick_export import Writer, writer
from tests.runtime.quick_export import cache as engines_cache
from tests.runtime.trt.fake_cuda import FakeCuda
from tests.runtime.vocoders import HIFT, write_assets

__all__ = ["engines_cache", "writer"]

MB, GB = 10**6, 10**9
ROOMY = Room(10**6 * GB, "")
CUDA = {"device": "cuda", "precision": "fp16"}
TORCH = {"runtime": "torch", "device": "cuda", "precision": "bf16"}
RECIPES = {
    "cpu": recipe.load("cpu"),
    "rtx": recipe.load("rtx"),
    "onnxruntime": recipe.of(CUDA),
    "torch": recipe.of(TORCH),
}
# What an error says would fit: a recipe's keys, or another recipe, with fewer tokens or with all.
FEWER = {
    "llm.head: int4": {"head": "int4"},
    "llm.precision: int4 and llm.head: int4": {"precision": "int4", "head": "int4"},
}


@cache
def config(size: str = "full") -> ModelConfig:
    return ModelConfig.from_json(config_json(size))


def on_card(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> FakeCuda:
    monkeypatch.setattr(card, "_bindings", lambda: cuda)
    return cuda


def claims(said: str, wanted: Recipe) -> list[tuple[Recipe, int, str]]:
    """Of an error: what would fit, with how many tokens, and where ("" is where it was asked)."""
    found = []
    for way in said.split("; ")[1:]:
        way = re.sub(r"^(or |even with .*?: )", "", way)
        if not (match := re.match(r"(.*?)(?:, with )?(?:kv_capacity: (\d+),?)? would fit", way)):
            continue
        name, tokens = match[1], int(match[2] or wanted.kv_capacity)
        if name == "":
            found.append((wanted, tokens, ""))
        elif name == "precision: int4":
            found.append((recipe.of({**TORCH, "precision": "int4"}), tokens, ""))
        elif name == "the recipe 'cpu' in main memory":
            found.append((recipe.load("cpu"), tokens, "host"))
        else:
            llm = replace(wanted.llm, **FEWER[name])
            found.append((replace(wanted, llm=llm), tokens, ""))
    return found


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(st.integers(-(10**8), 10**8), st.integers(-12 * GB, 10 * GB)),
    st.integers(1, 16 * GB),
    st.sampled_from(list(RECIPES)),
    st.integers(41, 200),
)
def test_what_is_said_to_fit_fits(more: int, host: int, name: str, hundreds: int) -> None:
    wanted, sizes = replace(RECIPES[name], kv_capacity=100 * hundreds), config()
    have = max(run_memory(sizes, wanted).total + more, 1)
    try:
        with mock.patch.object(room, "total_bytes", return_value=host):
            check_memory(sizes, wanted, Room(have, "there is so much"), 0, 0)
    except EngineError as error:
        said = str(error)
    else:
        assert run_memory(sizes, wanted).total <= have
        return
    assert run_memory(sizes, wanted).total > have
    found = claims(said, wanted)
    for other, tokens, where in found:
        limit = host if where else have
        assert tokens >= LEAST_CAPACITY
        assert run_memory(sizes, other, tokens).total <= limit, said
        if tokens < wanted.kv_capacity:
            assert run_memory(sizes, other, tokens + STEP).total > limit, said
    if not any(other is wanted for other, _, _ in found):
        assert f"even with {LEAST_CAPACITY} tokens it takes" in said
        assert run_memory(sizes, wanted, LEAST_CAPACITY).total > have
    if not found:
        assert said.endswith("take a smaller checkpoint, or a machine with more memory")


def test_too_little_memory_is_told_with_what_takes_it() -> None:
    with pytest.raises(EngineError) as caught:
        check_memory(config(), RECIPES["cpu"], Room(8 * GB, "there are 8.00 GB"), 0, 0)
    said = str(caught.value)
    assert "with the recipe 'cpu' the network takes 8.78 GB of memory" in said
    assert "8192 tokens of context 2.42 GB" in said
    assert "there are 8.00 GB; kv_capacity: 5376 would fit" in said


def test_a_card_that_others_use_is_told_from_one_that_is_too_small() -> None:
    for total, others in ((8 * GB, False), (24 * GB, True)):
        with pytest.raises(EngineError) as caught:
            check_memory(config(), RECIPES["rtx"], Room(8 * GB, "there are 8 free", total), 0, 0)
        assert ("it would fit if nothing else used the card" in str(caught.value)) == others
        assert "llm.head: int4 would fit" in str(caught.value)


def test_a_build_that_would_not_fit_is_told() -> None:
    cpu = RECIPES["cpu"]
    with pytest.raises(EngineError, match=r"takes 3\.00 GB of memory at once, 2\.00 GB are free"):
        check_memory(config(), cpu, ROOMY, 3 * GB, 2 * GB)
    check_memory(config(), cpu, ROOMY, 3 * GB, 3 * GB)
    check_memory(config(), cpu, Room(0, "nothing is known"), 3 * GB, 0)


def test_only_for_other_machines_can_a_card_be_hidden_while_building() -> None:
    small = Room(GB, "there is so much", GB)
    for name, to_build, hint in (("rtx", 1, True), ("rtx", 0, False), ("jetson_orin", 1, False)):
        with pytest.raises(EngineError) as caught:
            check_memory(config(), recipe.load(name), small, to_build, 0)
        assert ("CUDA_VISIBLE_DEVICES" in str(caught.value)) == hint


@pytest.mark.parametrize("name", ["rtx", "onnxruntime"])
def test_a_cards_memory_is_what_is_free_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_card(monkeypatch, FakeCuda(total=500 * MB)).free = 200 * MB
    found = room_for(RECIPES[name], RECIPES[name].llm.runtime)
    assert (found.nbytes, found.card) == (200 * MB, 500 * MB)
    assert found.about == "there are 0.20 GB free of the 0.50 GB of Fake RTX 4090"


def test_a_jetson_has_the_memory_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    on_card(monkeypatch, FakeCuda(total=500 * MB, integrated=True))
    monkeypatch.setattr(room, "total_bytes", lambda: 32 * GB)
    found = room_for(recipe.load("jetson_orin"), "tensorrt")
    assert found == Room(32 * GB, "there are 32.00 GB, which CPU and GPU share")


def test_a_card_that_is_not_here_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    second = recipe.of({**CUDA, "device": "cuda:1"})
    other = replace(RECIPES["rtx"], targets=("sm120",))
    on_card(monkeypatch, FakeCuda())
    for wanted, why in (
        (second, "there is no card 1, only 1"),
        (other, "the recipe does not build for the card that is here, Fake RTX 4090 (sm89"),
    ):
        found = room_for(wanted, wanted.llm.runtime)
        assert found.nbytes == 0 and why in found.about
    on_card(monkeypatch, FakeCuda(devices=0))
    found = room_for(RECIPES["rtx"], "tensorrt_rtx")
    assert found.nbytes == 0 and "there is no NVIDIA card here" in found.about


@pytest.mark.parametrize("why", ["no bindings", "no card"])
def test_a_card_whose_memory_nobody_knows_is_told_of(
    why: str,
    own_checkpoint: Path,
    engines_cache: EngineCache,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if why == "no card":
        on_card(monkeypatch, FakeCuda(devices=0))
    else:
        monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    speaking = write_assets(own_checkpoint)
    about = "cuda-python is not installed" if why == "no bindings" else "there is no NVIDIA card"
    said: list[str] = []
    load.ensure(speaking, recipe.of(CUDA), engines_cache, say=said.append)
    (told,) = said
    assert re.match(r"the network takes \S+ GB of the card's memory, and whether", told)
    assert about in told
    said.clear()
    # With the network it was told of both; in main memory there is nothing to tell.
    vocoder_load.ensure_vocoder(speaking, recipe.of(CUDA), engines_cache, say=said.append)
    load.ensure(speaking, built_network.recipe("fp32"), engines_cache, say=said.append)
    assert said == []
    alone = replace(RECIPES["cpu"], vocoder=RECIPES["rtx"].vocoder)
    room_there = room_for(alone, alone.vocoder.runtime)
    room.check_vocoder_memory(sized(TINY, HIFT), alone, room_there, said.append)
    assert said[0].startswith("the vocoder takes ") and about in said[0]


@pytest.fixture
def torch_card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As torch tells of a card."""
    about = mock.Mock(is_integrated=0)
    about.name = "Fake RTX 3060"
    tells = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_properties": lambda index: about,
        "mem_get_info": lambda index: (300 * MB, 500 * MB),
        "memory_reserved": lambda index: 60 * MB,
        "memory_allocated": lambda index: 10 * MB,
    }
    for name, tell in tells.items():
        monkeypatch.setattr(torch.cuda, name, tell)
    return about


def test_torch_tells_of_its_card_and_what_it_keeps_for_itself_is_free(
    torch_card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = room_for(RECIPES["torch"], "torch")
    assert (found.nbytes, found.card) == (350 * MB, 500 * MB)
    torch_card.is_integrated = 1
    monkeypatch.setattr(room, "total_bytes", lambda: GB)
    assert room_for(RECIPES["torch"], "torch").nbytes == GB
    assert room_for(recipe.of({**TORCH, "device": "cuda:1"}), "torch").nbytes == 0


@pytest.mark.usefixtures("torch_card")
def test_torch_loads_nothing_that_does_not_fit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    wanted = recipe.of({"runtime": "torch", "device": "auto", "name": "mine"})
    runs = as_it_runs(wanted, tiny_checkpoint)
    assert (runs.device, runs.kv_capacity) == ("cuda", wanted.kv_capacity)
    cache = EngineCache(tmp_path / "engines")
    with pytest.raises(EngineError, match=r"recipe 'mine' .* 0\.35 GB free .* of Fake RTX 3060"):
        load.load_network(tiny_checkpoint, wanted, cache=cache)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int4"])
def test_torchs_weights_are_reckoned_as_they_lie_in_memory(
    precision: str, tiny_checkpoint: Path
) -> None:
    from minicpmo_ros.model.packed import size_of
    from minicpmo_ros.runtime.torch_runtime import TorchNetwork

    network = TorchNetwork.load(tiny_checkpoint, precision=precision, packed=False)
    real = sum(size_of(stage) for stage in network.stages.values())
    wanted = recipe.of({"runtime": "torch", "device": "cpu", "precision": precision})
    assert run_memory(network.config, wanted).weights == pytest.approx(real, rel=0.02)


def test_a_vocoder_is_counted_where_the_language_model_is() -> None:
    sizes, speaks = config("tiny"), sized(TINY, HIFT)
    for name in ("cpu", "rtx"):
        wanted = RECIPES[name]
        silent, both = run_memory(sizes, wanted), planned(sizes, wanted, set(), speaks).run
        assert both.total - silent.total == both.vocoder == vocoder_memory(speaks, wanted) > 0
    elsewhere = replace(
        RECIPES["rtx"], vocoder=recipe.VocoderRecipe(runtime="onnxruntime", precision="fp32")
    )
    assert run_memory(sizes, elsewhere, vocoder=speaks).vocoder == 0


def test_a_vocoder_that_does_not_fit_beside_the_network_is_told_before_anything_is_built(
    own_checkpoint: Path,
    engines_cache: EngineCache,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = built_network.recipe("fp32")
    alone = run_memory(ModelConfig.load(own_checkpoint), wanted).total
    monkeypatch.setattr(room, "total_bytes", lambda: alone)
    speaking = write_assets(own_checkpoint)
    with pytest.raises(EngineError, match=r"the vocoder \d.*; kv_capacity: \d+ would fit"):
        load.ensure(speaking, wanted, engines_cache)
    assert writer.made == []
    (speaking / "assets" / "token2wav" / "hift.pt").write_bytes(b"no network")
    assert load.ensure(speaking, wanted, engines_cache)  # it will not be loaded


def test_a_vocoder_by_itself_is_held_against_the_card(
    own_checkpoint: Path,
    engines_cache: EngineCache,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = recipe.of({"name": "mine", **CUDA})
    cuda = on_card(monkeypatch, FakeCuda())
    cuda.free = 100_000
    speaking = write_assets(own_checkpoint)
    with pytest.raises(EngineError, match=r"'mine' the vocoder takes .* there are 0\.1 MB free"):
        vocoder_load.ensure_vocoder(speaking, wanted, engines_cache)
    assert writer.made == []
    cuda.free = cuda.total
    assert vocoder_load.ensure_vocoder(speaking, wanted, engines_cache)


@pytest.mark.parametrize("short_mb", [1, 40])
def test_a_card_that_is_too_small_is_told_before_anything_is_built(
    short_mb: int,
    tiny_checkpoint: Path,
    engines_cache: EngineCache,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = recipe.of({"name": "mine", **CUDA})
    need = run_memory(ModelConfig.load(tiny_checkpoint), wanted).total
    cuda = on_card(monkeypatch, FakeCuda(total=need - short_mb * MB))
    monkeypatch.setattr(room, "total_bytes", lambda: GB)
    with pytest.raises(EngineError) as caught:
        load.ensure(tiny_checkpoint, wanted, engines_cache)
    said = str(caught.value)
    assert "GB of the card's memory (weights" in said and "GB of Fake RTX 4090" in said
    assert bool(re.search(r"; kv_capacity: \d+ would fit", said)) == (short_mb == 1)
    assert "the recipe 'cpu' in main memory would fit" in said
    assert "set CUDA_VISIBLE_DEVICES to ''" in said
    assert writer.made == [] and engines_cache.entries() == []
    cuda.devices = 0  # as where it is hidden
    assert load.ensure(tiny_checkpoint, wanted, engines_cache)

"""Stages whose caches lie on a device, against onnxruntime on the CPU and torch.

In main memory all is tried but the provider for cards; what is tried on a card, where there is one,
are the same tests.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicpmo_ros.errors import EngineError, KvFullError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.runtime import load
from minicpmo_ros.runtime.api import Network
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.pieces import pieces
from minicpmo_ros.runtime.engines.planning import run_memory
from minicpmo_ros.runtime.kv import SMALLEST
from minicpmo_ros.runtime.ort.device import Device
from minicpmo_ros.runtime.ort.device_stages import (
    OrtDeviceCachedStage,
    OrtDeviceLoader,
    OrtDeviceStage,
)
from minicpmo_ros.runtime.ort.stages import OrtCachedStage, OrtStage
from tests.built_network import recipe as on_cpu
from tests.runtime.ort_devices import DEVICES, NO_CARD

# Half precision moves values over the edges of the eight bits that the CPU rounds inputs to.
EXACT, HALF = 1e-5, 5e-2
ON_CARD = {"precision": "fp16", "device": "cuda"}


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    return Device(request.param, threads=1)


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path) -> ModelConfig:
    return ModelConfig.load(tiny_checkpoint)


@pytest.fixture(scope="module")
def files(tiny_checkpoint: Path, engines: Path) -> Callable[[Any], dict[str, Path]]:
    """Gives the files of a recipe by name."""

    def found(wanted: recipe.Recipe) -> dict[str, Path]:
        built = load.ensure(tiny_checkpoint, wanted, EngineCache(engines))
        return {piece.name: file for piece, file in built.items()}

    return found


Stages = tuple[OrtDeviceCachedStage, OrtCachedStage]


@pytest.fixture(scope="module")
def layers(device: Device, config: ModelConfig, files: Callable[[Any], dict[str, Path]]) -> Stages:
    """Of the language model, in several files; the same on the CPU."""
    by_name = files(on_cpu("fp32"))
    parts = [(by_name[f"llm.{layer:02}"], 1) for layer in range(config.llm.layers)]
    assert len(parts) > 1
    sizes = config.llm.kv_heads, config.llm.head_dim, config.llm.rope_theta
    return OrtDeviceCachedStage(device, parts, *sizes), OrtCachedStage(parts, *sizes, threads=1)


def error(found: Any, expected: Any) -> float:
    """Largest difference, as a share of the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


class Both:
    """A cache on the device and one in numpy, read by the same steps."""

    def __init__(self, stages: Stages, capacity: int, width: int) -> None:
        self.stages = stages
        self.caches = [stage.cache(capacity) for stage in stages]
        self._random = np.random.default_rng(0)
        self._width = width

    def read(self, count: int, at: int | None = None) -> np.ndarray:
        embeds = self._random.standard_normal((count, self._width)).astype(np.float32)
        at = self.caches[0].length if at is None else at
        found, expected = (
            stage.step({"embeds": embeds}, cache, at, count)
            for stage, cache in zip(self.stages, self.caches, strict=True)
        )
        assert error(found, expected) < EXACT
        self.compare()
        return found

    def change(self, how: str, *given: Any) -> None:
        for cache in self.caches:
            getattr(cache, how)(*given)

    def compare(self) -> None:
        mine, right = self.caches
        assert mine.length == right.length
        last = min(mine.length, 30)
        assert error(mine.keys(last), right.keys(last)) < EXACT


def test_reading_growing_and_forgetting(layers: Stages, config: ModelConfig) -> None:
    """Many and one, over several files; rows removed, moved, written over and cut off."""
    both = Both(layers, 5 * SMALLEST, config.llm.hidden)
    for count in (40, 1, 1, 3, 1, SMALLEST, 1, SMALLEST, 1):
        both.read(count)
    assert both.caches[0].rows == 4 * SMALLEST
    both.change("remove", [(3, 200), (300, 310)])
    both.read(1)
    both.change("shift", 50, 80)
    both.read(30, at=50)
    both.read(1)
    both.change("truncate", 60)
    both.read(2)


def test_caches_of_one_stage_do_not_mix(layers: Stages, config: ModelConfig) -> None:
    one, other = (Both(layers, 500, config.llm.hidden) for _ in range(2))
    for count in (7, 1, 1):
        one.read(count)
        other.read(2 * count)


def test_a_full_cache_is_refused_before_anything_is_written(
    layers: Stages, config: ModelConfig
) -> None:
    both = Both(layers, 20, config.llm.hidden)
    both.read(15)
    with pytest.raises(KvFullError, match="20 rows, 15 in use"):
        both.stages[0].step({"embeds": np.zeros((6, config.llm.hidden))}, both.caches[0], 15, 6)
    both.compare()
    both.read(5)


def test_what_came_out_is_the_callers_to_keep(layers: Stages, config: ModelConfig) -> None:
    both = Both(layers, 50, config.llm.hidden)
    first = both.read(1)
    before = first.copy()
    both.read(1)
    assert np.array_equal(first, before)


def test_tokens_one_by_one_take_no_new_memory_on_the_device(
    layers: Stages, config: ModelConfig
) -> None:
    """Caches stay where they are, and so do new rows and what files hand to each other."""
    both = Both(layers, 100, config.llm.hidden)
    both.read(1)
    cache = both.caches[0]

    def places() -> list[int]:
        made = [one._step.get_outputs() for one in cache.passes.values()]
        return [one.data_ptr() for some in (cache.buffers, *made) for one in some]

    before = places()
    for _ in range(3):
        both.read(1)
    assert places() == before


def test_what_follows_a_step_that_failed_is_right(
    layers: Stages, device: Device, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of as many rows as there were before it: what was bound then is bound no more."""
    both = Both(layers, 100, config.llm.hidden)
    both.read(2)
    stage, cache = both.stages[0], both.caches[0]

    def fails(*given: Any) -> None:
        raise EngineError("no memory is left")

    with monkeypatch.context() as patch:
        patch.setattr(device, "run", fails)
        with pytest.raises(EngineError, match="no memory is left"):
            stage.step({"embeds": np.zeros((5, config.llm.hidden))}, cache, 2, 5)
    both.read(2)
    both.read(5)


def test_a_stage_without_a_cache(
    device: Device, config: ModelConfig, files: Callable[[Any], dict[str, Path]]
) -> None:
    by_name = files(on_cpu("fp32"))
    hidden = np.random.default_rng(0).standard_normal((3, config.llm.hidden)).astype(np.float32)
    (found,) = OrtDeviceStage(device, by_name["llm.head"]).run({"hidden": hidden})
    (expected,) = OrtStage(by_name["llm.head"], 1).run({"hidden": hidden})
    assert error(found, expected) < EXACT
    assert found.flags.owndata


def test_files_of_other_layers_are_refused(
    device: Device, files: Callable[[Any], dict[str, Path]]
) -> None:
    file = files(on_cpu("fp32"))["llm.00"]
    with pytest.raises(EngineError, match="has 2 caches, and 3 layers are asked for"):
        OrtDeviceCachedStage(device, [(file, 3)], 2, 64, 1e6)


def test_a_whole_network_in_half_precision(
    device: Device,
    config: ModelConfig,
    tiny_checkpoint: Path,
    engines: Path,
    built: Callable[[str], Network],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a recipe for a card asks for it, with weights of four and eight bits: picture, sound, text
    and codes, against the same in single precision."""
    from minicpmo_ros.model.picture import slices

    theirs = built("cpu")
    wanted = on_cpu("cpu")
    wanted = replace(
        wanted,
        device="cuda",
        llm=replace(wanted.llm, layers_per_file=1),
        vocoder=replace(wanted.vocoder, precision="fp16"),
    )
    files = load.ensure(tiny_checkpoint, wanted, EngineCache(engines))
    assert {piece.dtype for piece in files if not piece.is_table} == {"float16"}
    loader = OrtDeviceLoader(device.name, threads=1)
    monkeypatch.setattr(load, "runtime", lambda name, threads, where: loader)
    ours = load.assemble(config, wanted, files)

    picture = np.random.default_rng(0).integers(0, 256, (70, 40, 3), dtype=np.uint8)
    shown = slices(picture, 1, config.slices)
    assert error(ours.look(shown)[0], theirs.look(shown)[0]) < HALF
    mine, right = ours.ears(), theirs.ears()
    for _ in range(3):
        second = np.random.default_rng(1).standard_normal(16_000).astype(np.float32) * 0.1
        assert error(mine.step(second), right.step(second)) < HALF

    both = ours.context(300), theirs.context(300)
    ids = list(range(3, 143))
    assert error(*(one.read(ids) for one in both)) < HALF
    for one in both:
        one.remove([(5, 60)])
    hidden = [one.read([9]) for one in both]
    assert hidden[0].dtype == np.float32
    assert error(*hidden) < HALF
    logits = [one.logits(state) for one, state in zip(both, hidden, strict=True)]
    assert error(*logits) < HALF
    codes = []
    for one in (ours, theirs):
        thought = one.condition([4, 5], [one.context(9).read([1, 2])], text_ended=True, normalize=1)
        speech = one.speech()
        codes.append(speech.logits(speech.read(thought, [7])))
    assert error(*codes) < HALF


def test_what_a_recipe_for_a_card_is_planned_to_be(config: ModelConfig) -> None:
    wanted = recipe.of(ON_CARD)
    kinds = {piece.dtype for piece in pieces(config, wanted) if not piece.is_table}
    assert kinds == {"float16"}
    there, here = run_memory(config, wanted), run_memory(config, on_cpu("fp32"))
    assert (there.where, here.where) == ("card", "memory")
    assert 2 * there.kv == here.kv


def fake(**has: Any) -> types.ModuleType:
    """onnxruntime as it is here, with some of it replaced."""
    import onnxruntime

    module = types.ModuleType("onnxruntime")
    module.__dict__.update({**vars(onnxruntime), **has})
    return module


def test_without_a_provider_for_cards_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only_cpu = fake(get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", only_cpu)
    with pytest.raises(EngineError, match=r"not for NVIDIA cards.*onnxruntime-gpu\[cuda,cudnn\]"):
        load.runtime("onnxruntime", device="cuda:0")
    with pytest.raises(EngineError, match="not for NVIDIA cards"):
        load.check_runtimes(recipe.of(ON_CARD))


def test_a_provider_that_does_not_load_is_not_taken_for_a_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """onnxruntime would go on without a word, on the CPU."""
    import onnxruntime

    asked: list[Any] = []

    def session(file: Any, options: Any, providers: list[Any], **how: Any) -> Any:
        asked.extend(providers)
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    gpu = fake(
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        preload_dlls=lambda: print("Failed to load libcublas.so.13: no such file"),
        InferenceSession=session,
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", gpu)
    with pytest.raises(
        EngineError, match=r"cannot use cuda:3 \(Failed to load libcublas.*its driver"
    ):
        Device("cuda:3")
    name, options = asked[0]
    assert name == "CUDAExecutionProvider"
    assert options["device_id"] == "3"
    assert options["use_tf32"] == "0"


@pytest.mark.skipif(bool(NO_CARD), reason=f"tried in main memory alone: {NO_CARD.split(':')[0]}")
def test_on_a_card_it_is_the_card_that_computes() -> None:
    device = Device("cuda")
    assert device.put(np.zeros(3, np.float32)).device_name() == "cuda"
    assert device.writer(1, np.dtype(np.float16)).get_providers()[0] == "CUDAExecutionProvider"

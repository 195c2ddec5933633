"""Each built stage against torch on the same input: does what was built compute what it should?

Torch computes in float32, once with the weights rounded as they are in the file, which shows what
the runtime does otherwise, and once with the checkpoint's own, which shows rounding's cost, too.
Of a language model in several files, each is given what torch made of the files before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.mel import WINDOW_FRAMES
from minicpmo_ros.model.picture import batch, slices
from minicpmo_ros.model.sound_stream import POSITIONS_PER_SECOND
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines.pieces import Piece, Sizes
from minicpmo_ros.runtime.engines.vocoder_feeds import vocoder_feeds
from minicpmo_ros.runtime.export import plans
from minicpmo_ros.runtime.export.calibration import Calibration
from minicpmo_ros.runtime.export.writer import Importance, Read
from minicpmo_ros.runtime.int4 import can_quantise, quantise
from minicpmo_ros.runtime.kv import frequencies
from minicpmo_ros.runtime.load import Loader

Array = NDArray[Any]
Feed = dict[str, Array]

# Tokens that are read at once, and how often one is read behind them.
PREFILL = 24
DECODES = 3
# Rows by which keys are moved.
SLID = 500
LARGEST_HALF = 65504.0
# What half precision, or inputs that are rounded to eight bits, explain in a layer. Errors of
# layers add up as roundings do that know nothing of each other: by the root of their number.
EXPECTED = {"fp32": 1e-4, "fp16": 2e-2, "int8": 5e-2, "int4": 5e-2}
# Pitch is summed to phases: single precision is off by some thousandths of a wave in a second.
EXPECTED_OF = {"hift": 2e-2}


@dataclass(frozen=True)
class Checked:
    """What one file came to.

    Errors are square roots of mean squares, as shares of those of what is right, the worst of all
    steps; runtime: against the file's own weights; whole: against the checkpoint's. rows: runtime's
    of the keys, or of all outputs but the first. largest: of all that flows through the stage in
    torch; above 65,504 half precision overflows. layers: in the file, 1 for a head.
    """

    piece: Piece
    runtime: float
    whole: float
    rows: float
    largest: float
    layers: int = 1

    @property
    def expected(self) -> bool:
        """Whether the runtime's error is what its precision explains, and all values fit."""
        fits = self.piece.dtype == "float32" or self.largest < LARGEST_HALF
        expected = EXPECTED_OF.get(self.piece.name, EXPECTED[self.piece.precision])
        limit = expected * self.layers**0.5
        return fits and all(error <= limit for error in (self.runtime, self.rows))  # never NaN


class TorchStage(nn.Module):
    """A piece in torch, float32; `run` as `stages.Stage`.

    Args:
        read: weights by their names in the checkpoint.
        importance: see `writer.export`; None: weights are not rounded.
    """

    def __init__(
        self,
        piece: Piece,
        config: Sizes,
        read: Read,
        importance: Importance | None = None,
    ) -> None:
        super().__init__()
        plan = plans.plan(piece, config)
        named = plan.weights(plans.weights(piece, config, read))
        known = plan.importance(importance or unknown)

        def weights(name: str) -> torch.Tensor:
            found = named(name)
            bits = plan.bits(name)
            if importance is not None and bits and can_quantise(found.shape):
                found = quantise(found, known(name), bits).weights()
            elif importance is not None and plan.lies_in_half(name, found.shape):
                found = found.astype(np.float16).astype(np.float32)
            return torch.from_numpy(found)

        with torch.device("meta"):
            self.stage = plan.make()
        state = {name: weights(name) for name in self.stage.state_dict()}
        self.stage.load_state_dict(state, assign=True)
        self.stage.eval()
        self._inputs = plan.inputs
        self._seen = _Largest()

    @property
    def largest(self) -> float:
        """Of all values of all runs, those that are float32 in half precision, too, left out."""
        return self._seen.value

    @torch.inference_mode()
    def run(self, feed: Feed) -> list[Array]:
        plain = [name for name in self._inputs if not name.startswith("cache.")]
        given: list[Any] = [torch.from_numpy(feed[name]) for name in plain]
        if len(plain) < len(self._inputs):
            caches = self._inputs[len(plain) :]
            given.append([torch.from_numpy(feed[name]) for name in caches])
        with self._seen:
            found = self.stage(*given)
        if not isinstance(found, tuple):
            return [found.numpy()]
        if not isinstance(found[1], list):
            return [one.numpy() for one in found]
        return [found[0].numpy(), *(rows.numpy() for rows in found[1])]


class _Largest(TorchFunctionMode):
    """Looks at whatever torch computes: what modules give is not all, a residual stream or the
    inner product of an MLP are larger."""

    # Squares of norms, which are in single precision whatever a stage has.
    WIDE = (torch.pow, torch.mean)
    # Below this is only what `graphs.hide` hides.
    HIDDEN = -1e8

    def __init__(self) -> None:
        super().__init__()
        self.value = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        # With plain numbers only norms and angles are computed, in single precision as well.
        wide = func in self.WIDE or any(isinstance(one, float) for one in args)
        if isinstance(found, torch.Tensor) and found.is_floating_point() and not wide:
            shown = torch.where(found < self.HIDDEN, 0.0, found)
            self.value = max(self.value, float(shown.abs().max()) if shown.numel() else 0.0)
        return found


@dataclass(frozen=True)
class Step:
    """What a stage is given, and how many rows it leaves in its caches."""

    feed: Feed
    rows: int = 0


@dataclass
class Ran:
    """What came of the steps, and keys if there are any: [layers, heads, rows, head_dim]."""

    outputs: list[Array]
    keys: list[Array]
    largest: float = 0.0


def check(
    config: ModelConfig, read: Read, loader: Loader, calibration: Calibration | None = None
) -> Iterator[Checked]:
    """File by file, holding the weights of one of them in torch at a time.

    Args:
        read: the checkpoint's weights by name.
        loader: with the files of a whole network.
        calibration: by which the language model's layers are scaled.
    """
    random = np.random.default_rng(0)
    hidden: dict[str, Array] = {}
    for piece in loader.pieces:
        if piece.is_table:
            continue
        scaled: Read = read
        importance: Importance = unknown
        if calibration is not None and piece.calibration:
            scaled = calibration.scaled(read)
            importance = plans.named(piece, calibration.importance)
        steps = _steps(config, piece, hidden, random)
        caches = _cache_shapes(config, piece, loader, steps)
        mine = _built(loader, piece, steps)
        rounded = _in_torch(TorchStage(piece, config, scaled, importance), steps, caches)
        exact = _in_torch(TorchStage(piece, config, read), steps, caches)
        if caches:
            hidden[piece.part] = np.concatenate(exact.outputs)
        yield _checked(piece, mine, rounded, exact, _layers(config, piece))


def check_vocoder(config: VocoderConfig, read: Read, loader: Loader) -> Iterator[Checked]:
    """The same for a vocoder's files. read: weights by the names of `model.vocoder`."""
    random = np.random.default_rng(0)
    for piece in loader.pieces:
        if piece.is_table:
            continue
        steps = [Step(feed) for feed in vocoder_feeds(piece, config, random)]
        mine = _built(loader, piece, steps)
        rounded = _in_torch(TorchStage(piece, config, read, unknown), steps, [])
        exact = _in_torch(TorchStage(piece, config, read), steps, [])
        if piece.name == "hift":
            for ran in (mine, rounded, exact):
                # Phases are the last of three, and one cycle is as good as none.
                ran.keys[2::3] = [np.sin(2 * np.pi * cycles) for cycles in ran.keys[2::3]]
        layers = {
            "flow.encoder": config.flow.conformer.layers + config.flow.conformer.up_layers,
            "flow.estimator": config.flow.estimator.layers,
        }
        yield _checked(piece, mine, rounded, exact, layers.get(piece.name, 1))


def _checked(piece: Piece, mine: Ran, rounded: Ran, exact: Ran, layers: int) -> Checked:
    return Checked(
        piece,
        runtime=_worst(zip(mine.outputs, rounded.outputs, strict=True)),
        whole=_worst(zip(mine.outputs, exact.outputs, strict=True)),
        rows=_worst(zip(mine.keys, rounded.keys, strict=True)) if mine.keys else 0.0,
        largest=max(rounded.largest, exact.largest),
        layers=layers,
    )


def unknown(name: str) -> Array | None:
    """Nothing is known of what enters a matrix."""
    return None


def _steps(
    config: ModelConfig, piece: Piece, hidden: dict[str, Array], random: np.random.Generator
) -> list[Step]:
    """What a piece is given: noise, or what torch made of the files before it."""
    if piece.name == "vision":
        return [Step(feed) for feed in _pictures(config, random)]
    if piece.name == "audio":
        return _seconds(config, random)
    if piece.name.endswith(".head"):
        return [Step({"hidden": hidden[piece.part][-1:]})]
    if piece.name.endswith(".turn"):
        return [Step(_slide(config, random))]
    return _tokens(config, piece, hidden, random)


def _layers(config: ModelConfig, piece: Piece) -> int:
    whole = {"vision": config.vision.layers, "audio": config.audio.layers}
    return piece.layers[1] - piece.layers[0] or whole.get(piece.name, 1)


def _cache_shapes(
    config: ModelConfig, piece: Piece, loader: Loader, steps: list[Step]
) -> list[tuple[int, int, int]]:
    """Of a piece that has caches, for all rows of the steps."""
    rows = sum(step.rows for step in steps)
    if not rows:
        return []
    heads, dim, _ = loader.cache_sizes(piece.part)
    return [(heads, rows, dim)] * (2 * _layers(config, piece))


def _built(loader: Loader, piece: Piece, steps: list[Step]) -> Ran:
    ran = Ran([], [])
    if not steps[0].rows:
        stage = loader.stage(piece.name)
        for step in steps:
            first, *others = stage.run(step.feed)
            ran.outputs.append(first)
            ran.keys += others
        return ran
    cached = loader.cached_file(piece)
    cache = cached.cache(sum(step.rows for step in steps))
    for step in steps:
        ran.outputs.append(cached.step(step.feed, cache, cache.length, step.rows))
        ran.keys.append(cache.keys(step.rows))
    return ran


def _in_torch(stage: TorchStage, steps: list[Step], shapes: list[tuple[int, int, int]]) -> Ran:
    ran = Ran([], [])
    caches = [np.zeros(shape, np.float32) for shape in shapes]
    named = {f"cache.{index}": cache for index, cache in enumerate(caches)}
    at = 0
    for step in steps:
        past = {"past": np.array([at], np.int64)} if caches else {}
        out, *own = stage.run({**step.feed, **past, **named})
        ran.outputs.append(out)
        if not caches:
            ran.keys += own
            continue
        for cache, some in zip(caches, own, strict=True):
            cache[:, at : at + step.rows] = some
        ran.keys.append(np.stack(own[0::2]))
        at += step.rows
    ran.largest = stage.largest
    return ran


def _worst(pairs: Iterable[tuple[Array, Array]]) -> float:
    """NaN if one of them is."""
    return float(np.max([_error(*pair) for pair in pairs]))


def _error(found: Array, right: Array) -> float:
    return float(np.sqrt(np.mean(np.square(found - right)) / np.mean(np.square(right))))


def _tokens(
    config: ModelConfig, piece: Piece, hidden: dict[str, Array], random: np.random.Generator
) -> list[Step]:
    """What the file before gave, or noise: many at once, and then one by one."""
    width = config.llm.hidden if piece.part == "llm" else config.speech_sizes().hidden
    start = (random.standard_normal((PREFILL + DECODES, width)) * 0.02).astype(np.float32)
    whole = start if piece.layers[0] == 0 else hidden[piece.part]
    steps = [Step({"embeds": whole[:PREFILL]}, PREFILL)]
    return steps + [Step({"embeds": whole[i : i + 1]}, 1) for i in range(PREFILL, len(whole))]


def _slide(config: ModelConfig, random: np.random.Generator) -> Feed:
    """Keys of a few rows, and how far they turn."""
    llm = config.llm
    keys = random.standard_normal((llm.kv_heads * PREFILL, llm.head_dim)).astype(np.float32)
    angles = -SLID * frequencies(llm.head_dim, llm.rope_theta)
    return {"keys": keys, "cos": np.cos(angles), "sin": np.sin(angles)}


def _pictures(config: ModelConfig, random: np.random.Generator) -> list[Feed]:
    """A photograph's shape and a strip, in noise that is smooth, as pictures are."""
    feeds = []
    for size in ((480, 640), (90, 400)):
        rough = random.integers(0, 256, (size[0] // 10, size[1] // 10, 3))
        picture = np.kron(rough, np.ones((10, 10, 1))).astype(np.uint8)
        (one,) = slices(picture, 1, config.slices)
        found = batch([one], config.vision.side)
        feeds.append(
            {"pixels": found.pixels, "position_ids": found.position_ids, "cells": found.cells}
        )
    return feeds


def _seconds(config: ModelConfig, random: np.random.Generator) -> list[Step]:
    mels = (random.standard_normal((3, config.audio.mels, WINDOW_FRAMES)) * 0.3).astype(np.float32)
    frames = np.array([100], np.int64)
    return [
        Step(
            {"mel": mel, "opening": np.array([number == 0]), "frames": frames},
            POSITIONS_PER_SECOND,
        )
        for number, mel in enumerate(mels)
    ]

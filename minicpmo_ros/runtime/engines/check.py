"""Each built stage against torch on the same input: does what was built compute what it should?

Torch computes in float32, once with the weights rounded as they are in the file, which shows what
the runtime does otherwise, and once with the checkpoint's own, which shows rounding's cost, too.
Of a language model in several files, each is given what torch made of the files before it. Where
there is nothing to run what is built, torch alone shows rounding and what half precision cannot
hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines.check_feeds import Array, Feeds, Run, Step
from minicpmo_ros.runtime.engines.host_memory import give_back
from minicpmo_ros.runtime.engines.pieces import BITS, Piece
from minicpmo_ros.runtime.engines.torch_stage import LARGEST_HALF, TorchStage, unknown
from minicpmo_ros.runtime.engines.vocoder_feeds import vocoder_feeds
from minicpmo_ros.runtime.export import plans
from minicpmo_ros.runtime.export.calibration import Calibration
from minicpmo_ros.runtime.export.writer import Importance, Read
from minicpmo_ros.runtime.load import Loader

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
    torch; above 65,504 half precision overflows. layers: in the file, 1 for a head. ran: whether
    what was built was run; else runtime and rows are 0, and whole is what rounding costs in torch.
    """

    piece: Piece
    runtime: float
    whole: float
    rows: float
    largest: float
    layers: int = 1
    ran: bool = True

    @property
    def expected(self) -> bool:
        """Whether the runtime's error is what its precision explains, and all values fit."""
        return self.fits and all(error <= self.limit for error in (self.runtime, self.rows))

    @property
    def fits(self) -> bool:
        """Whether all values are numbers that the piece's precision can hold."""
        most = math.inf if self.piece.dtype == "float32" else LARGEST_HALF
        return self.largest < most

    @property
    def limit(self) -> float:
        """Of the runtime's errors. NaN is above it."""
        expected = EXPECTED_OF.get(self.piece.name, EXPECTED[self.piece.precision])
        return float(expected * self.layers**0.5)


@dataclass
class Ran:
    """What came of the steps, and keys if there are any: [layers, heads, rows, head_dim]."""

    outputs: list[Array]
    keys: list[Array]
    largest: float = 0.0


def check(
    config: ModelConfig,
    read: Read,
    loader: Loader,
    calibration: Calibration | None = None,
    *,
    feeds: Feeds | None = None,
    runs_built: bool = True,
) -> Iterator[Checked]:
    """File by file, holding the weights of one of them in memory at a time, once.

    Args:
        read: the checkpoint's weights by name.
        loader: with the files of a whole network.
        calibration: by which the language model's layers are scaled.
        feeds: what the files are given; None: noise.
        runs_built: False: nothing is loaded or run but torch, and no file need be there.
    """
    random = np.random.default_rng(0)
    feeds = feeds or Feeds(config)
    hidden: dict[str, list[Array]] = {}
    for piece in loader.pieces:
        if piece.is_table:
            continue
        scaled: Read = read
        importance: Importance = unknown
        if calibration is not None and piece.calibration:
            scaled = calibration.scaled(read)
            importance = plans.named(piece, calibration.importance)
        runs = feeds.runs(piece, hidden, random)
        layers = _layers(config, piece)
        mine = _built(loader, piece, runs) if runs_built else None
        caches = _caches(loader, piece, runs, layers)
        exact = rounded = _in_torch(TorchStage(piece, config, read), runs, caches)
        if BITS[piece.precision]:
            rounded = _in_torch(TorchStage(piece, config, scaled, importance), runs, caches)
        if piece.layers[1]:
            each = iter(exact.outputs)
            hidden[piece.part] = [np.concatenate([next(each) for _ in run]) for run in runs]
        give_back()
        yield _checked(piece, mine, rounded, exact, layers)


def check_vocoder(
    config: VocoderConfig, read: Read, loader: Loader, *, runs_built: bool = True
) -> Iterator[Checked]:
    """The same for a vocoder's files. read: weights by the names of `model.vocoder`."""
    random = np.random.default_rng(0)
    layers = {
        "flow.encoder": config.flow.conformer.layers + config.flow.conformer.up_layers,
        "flow.estimator": config.flow.estimator.layers,
    }
    for piece in loader.pieces:
        if piece.is_table:
            continue
        runs = [[Step(feed) for feed in vocoder_feeds(piece, config, random)]]
        mine = _built(loader, piece, runs) if runs_built else None
        rounded = _in_torch(TorchStage(piece, config, read, unknown), runs)
        exact = _in_torch(TorchStage(piece, config, read), runs)
        if piece.name == "hift":
            for ran in filter(None, (mine, rounded, exact)):
                # Phases are the last of three, and one cycle is as good as none.
                ran.keys[2::3] = [np.sin(2 * np.pi * cycles) for cycles in ran.keys[2::3]]
        yield _checked(piece, mine, rounded, exact, layers.get(piece.name, 1))


def _checked(piece: Piece, mine: Ran | None, rounded: Ran, exact: Ran, layers: int) -> Checked:
    found = mine or rounded
    return Checked(
        piece,
        runtime=_worst(zip(found.outputs, rounded.outputs, strict=True)) if mine else 0.0,
        whole=_worst(zip(found.outputs, exact.outputs, strict=True)),
        rows=_worst(zip(found.keys, rounded.keys, strict=True)) if mine and mine.keys else 0.0,
        largest=max(rounded.largest, exact.largest),
        layers=layers,
        ran=mine is not None,
    )


def _layers(config: ModelConfig, piece: Piece) -> int:
    whole = {"vision": config.vision.layers, "audio": config.audio.layers}
    return piece.layers[1] - piece.layers[0] or whole.get(piece.name, 1)


def _built(loader: Loader, piece: Piece, runs: Sequence[Run]) -> Ran:
    ran = Ran([], [])
    if not runs[0][0].rows:
        stage = loader.stage(piece.name)
        for step in (step for run in runs for step in run):
            first, *others = stage.run(step.feed)
            ran.outputs.append(first)
            ran.keys += others
        return ran
    cached = loader.cached_file(piece)
    for run in runs:
        cache = cached.cache(sum(step.rows for step in run))
        for step in run:
            ran.outputs.append(cached.step(step.feed, cache, cache.length, step.rows))
            ran.keys.append(cache.keys(step.rows))
    return ran


def _caches(loader: Loader, piece: Piece, runs: Sequence[Run], layers: int) -> tuple[int, int, int]:
    """How many caches a piece has, their heads and their width; zeros where it has none."""
    if not runs[0][0].rows:
        return 0, 0, 0
    heads, dim, _ = loader.cache_sizes(piece.part)
    return 2 * layers, heads, dim


def _in_torch(
    stage: TorchStage, runs: Sequence[Run], caches: tuple[int, int, int] = (0, 0, 0)
) -> Ran:
    ran = Ran([], [])
    count, heads, dim = caches
    for run in runs:
        rows = sum(step.rows for step in run)
        own = [np.zeros((heads, rows, dim), np.float32) for _ in range(count)]
        named = {f"cache.{index}": cache for index, cache in enumerate(own)}
        at = 0
        for step in run:
            past = {"past": np.array([at], np.int64)} if count else {}
            out, *others = stage.run({**step.feed, **past, **named})
            ran.outputs.append(out)
            if not count:
                ran.keys += others
                continue
            for cache, some in zip(own, others, strict=True):
                cache[:, at : at + step.rows] = some
            ran.keys.append(np.stack(others[0::2]))
            at += step.rows
    ran.largest = stage.largest
    return ran


def _worst(pairs: Iterable[tuple[Array, Array]]) -> float:
    """NaN if one of them is."""
    return float(np.max([_error(*pair) for pair in pairs]))


def _error(found: Array, right: Array) -> float:
    return float(np.sqrt(np.mean(np.square(found - right)) / np.mean(np.square(right))))

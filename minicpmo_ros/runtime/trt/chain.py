"""Engines in a row: each takes its first input where the one before it left its first output.

All memory but that of caches is taken when they are loaded, for the largest that they were built
for, so that addresses stay and a card that is too small is noticed at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.stages import Array
from minicpmo_ros.runtime.trt.cache import DeviceCache
from minicpmo_ros.runtime.trt.card import Card, Growing
from minicpmo_ros.runtime.trt.engine import Engine, Shape, Tensor
from minicpmo_ros.runtime.trt.library import Library
from minicpmo_ros.runtime.trt.program import Crossing, Program, Programs, Step
from minicpmo_ros.runtime.trt.rows import Rows

CACHE, ROWS = "cache.", "rows."
# Runs after which new kernels are written down: they come with new sizes, ever more seldom.
SAVE_AFTER = (20, 200, 2000, 20_000)


@dataclass(frozen=True)
class Run:
    """One engine with the shapes of what goes in, of its caches, and of what comes out."""

    engine: Engine
    profile: int
    inputs: dict[str, Shape]
    caches: dict[str, Shape]
    outputs: dict[str, Shape]

    @property
    def shapes(self) -> dict[str, Shape]:
        return {**self.inputs, **self.caches}

    def step(self, addresses: dict[str, int], alone: bool) -> Step:
        apart = tuple(self.shapes.items()) if alone else None
        return Step(self.engine.execution(self.profile, apart), self.shapes, addresses)


class Chain:
    """See the module's first lines.

    Attributes:
        engines: in their order.

    Raises:
        EngineError: a file cannot be loaded, or they do not belong together.
    """

    def __init__(self, library: Library, card: Card, files: Sequence[Path]) -> None:
        self._card = card
        self.engines = [Engine(library, card, file) for file in files]
        first = self.engines[0]
        for before, after in zip(self.engines, self.engines[1:], strict=False):
            _check_row(first, before, after)
        self._between = Growing(card), Growing(card)
        self._new = Growing(card)
        self._runs_done = 0
        self._given: dict[str, Crossing] = {}
        self._results: dict[str, Crossing] = {}
        self._take_memory([tensor for tensor in first.inputs if not _is(tensor, CACHE)])

    def put(self, feed: Mapping[str, Array]) -> None:
        """Take what goes in: every input but caches, by name.

        Raises:
            EngineError: something is of a size that the engines were not built for.
        """
        if feed.keys() != self._given.keys():
            raise ValueError(f"inputs are {', '.join(self._given)}; given are {', '.join(feed)}")
        self.engines[0].profile({name: array.shape for name, array in feed.items()})
        for name, array in feed.items():
            self._given[name].put(array)

    def program(self, programs: Programs, cache: DeviceCache | None = None) -> Program:
        """What runs what was put; kept in `programs` if it will come again.

        Raises:
            EngineError: the cache is of a size that the engines were not built for.
        """
        shapes = {name: crossing.shape for name, crossing in self._given.items()}
        key = tuple(shapes.values()), self._card.scratch.address
        if key in programs:
            return programs[key]
        program = self._program(list(self._runs(shapes, cache.rows.rows if cache else 0)), cache)
        if program.recurs:
            programs[key] = program
        return program

    def get(self) -> list[Array]:
        """What came out, in the file's order, once the card is through with it."""
        self._runs_done += 1
        if self._runs_done in SAVE_AFTER:
            self.save_kernels()
        return [crossing.get() for crossing in self._results.values()]

    def save_kernels(self) -> None:
        """Keep what was compiled for this card, so that the next start is faster."""
        for engine in self.engines:
            engine.save_kernels()

    def _runs(self, given: Mapping[str, Shape], rows: int) -> Iterator[Run]:
        flow: Shape = ()
        for number, engine in enumerate(self.engines):
            inputs, caches = {}, {}
            for tensor in engine.inputs:
                if _is(tensor, CACHE):
                    caches[tensor.name] = (tensor.shape[0], rows, *tensor.shape[2:])
                elif number and tensor is _taken(engine):
                    inputs[tensor.name] = flow
                else:
                    inputs[tensor.name] = given[tensor.name]
            profile = engine.profile({**inputs, **caches})
            outputs = engine.execution(profile).outputs({**inputs, **caches})
            yield Run(engine, profile, inputs, caches, outputs)
            flow = outputs[_flow(engine).name]

    def _program(self, runs: Sequence[Run], cache: DeviceCache | None) -> Program:
        recurs = all(run.engine.is_least(run.profile, run.inputs) for run in runs)
        new = self._new_rows(cache.rows, runs) if cache else None
        steps = []
        tensor = 0
        for number, run in enumerate(runs):
            addresses = {
                name: one.address for name, one in self._given.items() if name in run.inputs
            }
            if number:
                addresses[_taken(run.engine).name] = self._between[number % 2].address
            addresses[_flow(run.engine).name] = self._between[(number + 1) % 2].address
            if run is runs[-1]:
                addresses |= {name: one.address for name, one in self._results.items()}
            if cache and new:
                for index in range(len(run.caches)):
                    place = cache.index(tensor)
                    addresses[f"{CACHE}{index}"] = cache.rows.of(place)
                    addresses[f"{ROWS}{index}"] = new.of(place)
                    tensor += 1
            steps.append(run.step(addresses, alone=recurs))
        results = [(one, runs[-1].outputs[name]) for name, one in self._results.items()]
        return Program(self._card, list(self._given.values()), steps, results, recurs, new)

    def _new_rows(self, cache: Rows, runs: Sequence[Run]) -> Rows:
        count = runs[0].outputs[f"{ROWS}0"][1]
        return Rows(self._new.address, cache.tensors, cache.heads, count, cache.width)

    def _take_memory(self, inputs: Sequence[Tensor]) -> None:
        """For the largest sizes of each profile."""
        last = self.engines[-1]
        results = [tensor for tensor in last.outputs if not _is(tensor, ROWS)]
        needed: dict[str, int] = {}
        for given, rows in self.engines[0].largest(f"{CACHE}0"):
            runs = list(self._runs(given, rows))
            sizes = {
                **{tensor.name: _nbytes(tensor, given[tensor.name]) for tensor in inputs},
                **{
                    tensor.name: _nbytes(tensor, runs[-1].outputs[tensor.name])
                    for tensor in results
                },
            }
            needed = {name: max(size, needed.get(name, 0)) for name, size in sizes.items()}
            for run in runs[:-1]:
                flow = _flow(run.engine)
                for place in self._between:
                    place.reserve(_nbytes(flow, run.outputs[flow.name]))
            self._new.reserve(sum(_new_bytes(run) for run in runs))
        self._given = {
            one.name: Crossing(self._card, one.dtype, needed[one.name]) for one in inputs
        }
        self._results = {
            one.name: Crossing(self._card, one.dtype, needed[one.name]) for one in results
        }


def _is(tensor: Tensor, kind: str) -> bool:
    return tensor.name.startswith(kind)


def _flow(engine: Engine) -> Tensor:
    """What an engine hands on to the next."""
    return next(one for one in engine.outputs if not _is(one, ROWS))


def _taken(engine: Engine) -> Tensor:
    """Where an engine that is not the first takes that."""
    return next(one for one in engine.inputs if not _is(one, CACHE) and one.dtype.kind == "f")


def _nbytes(tensor: Tensor, shape: Shape) -> int:
    return math.prod(shape) * tensor.dtype.itemsize


def _new_bytes(run: Run) -> int:
    """Of the rows that an engine gives for its caches."""
    found = 0
    for tensor in run.engine.outputs:
        if _is(tensor, ROWS):
            heads, rows, dim = run.outputs[tensor.name]
            found += Rows(0, 1, heads, rows, dim * tensor.dtype.itemsize).nbytes
    return found


def _check_row(first: Engine, before: Engine, after: Engine) -> None:
    """That an engine follows on another."""
    flow, taken = _flow(before), _taken(after)
    fits = flow.dtype == taken.dtype and flow.shape == taken.shape
    others = [one for one in after.inputs if one is not taken and not _is(one, CACHE)]
    if not fits or any(first.tensors.get(one.name) != one for one in others):
        raise EngineError(
            f"{after.file} does not follow on {before.file}: it takes {taken}, and gets {flow};"
            " they are of different networks or recipes: `minicpmo engines build` makes them anew"
        )

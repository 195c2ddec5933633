"""How rows of a cache come to lie in other rows: values as they are, keys turned on the way.

On the card an engine of `export.turn` turns them: what a window lets slide, half a gigabyte at full
size, is read and written there and never crosses. Without such an engine the host turns them, which
takes about a second for it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.kv import frequencies, rotate, turn
from minicpmo_ros.runtime.trt.card import Card, Growing
from minicpmo_ros.runtime.trt.engine import Engine
from minicpmo_ros.runtime.trt.host_rows import HostRows
from minicpmo_ros.runtime.trt.library import Library
from minicpmo_ros.runtime.trt.program import Crossing, Step
from minicpmo_ros.runtime.trt.rows import PIECE, Rows, copy_rows

KEYS, COS, SIN, TURNED = "keys", "cos", "sin", "turned"
_log = logging.getLogger(__name__)


class Turning(ABC):
    """Moves rows of one size, in the order of the card's stream."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._apart = Growing(card)

    def move(self, keys: Rows, values: Rows, start: int, stop: int, to: int) -> None:
        """Rows [start, stop) to the rows from `to` on, which they may overlap. Done on return."""
        pieces = [(first, min(first + PIECE, stop)) for first in range(start, stop, PIECE)]
        self._begin(to - start)
        # In the order in which nothing is written over that is still to be read.
        for first, end in pieces if to < start else reversed(pieces):
            target, count = first + to - start, end - first
            apart = self._place(values)
            copy_rows(self._card, values, first, apart, 0, count)
            copy_rows(self._card, apart, 0, values, target, count)
            self._turn(keys, first, target, count)
        self._card.synchronize()

    def _place(self, rows: Rows) -> Rows:
        """Where a piece of each tensor lies on its way: so it may be moved by less than it has."""
        sizes = rows.tensors, rows.heads, PIECE, rows.width
        self._apart.reserve(Rows(0, *sizes).nbytes)
        return Rows(self._apart.address, *sizes)

    @abstractmethod
    def _begin(self, distance: int) -> None:
        """All keys that follow move by so many rows."""

    @abstractmethod
    def _turn(self, keys: Rows, start: int, to: int, count: int) -> None:
        """Move `count` rows, at most PIECE, and turn them."""


class CardTurning(Turning):
    """By an engine.

    Args:
        layers, heads, dim, dtype: of the keys.

    Raises:
        EngineError: the file cannot be loaded, or is of other keys.
    """

    def __init__(
        self,
        library: Library,
        card: Card,
        file: Path,
        layers: int,
        heads: int,
        dim: int,
        dtype: np.dtype[np.floating],
        rope_theta: float,
    ) -> None:
        super().__init__(card)
        engine = Engine(library, card, file)
        _check(engine, dim, dtype)
        self._frequencies = frequencies(dim, rope_theta).astype(np.float64)
        before = self._place(Rows(0, layers, heads, PIECE, dim * dtype.itemsize))
        self._memory = card.memory(before.nbytes)
        self._turned = replace(before, address=self._memory.address)
        single = np.dtype(np.float32)
        self._angles = {name: Crossing(card, single, 2 * dim) for name in (COS, SIN)}
        addresses = {name: one.address for name, one in self._angles.items()}
        addresses |= {KEYS: before.address, TURNED: self._turned.address}
        shapes = {KEYS: (layers * heads * PIECE, dim), COS: (dim // 2,), SIN: (dim // 2,)}
        execution = engine.execution(engine.profile(shapes), apart=TURNED)
        self._step = Step(execution, shapes, addresses)
        # What is compiled the first time must not hold up a conversation.
        self._begin(0)
        self._step.run()
        card.synchronize()
        engine.save_kernels()

    def _begin(self, distance: int) -> None:
        """One angle for all: turns add up, so it does not matter how far keys were turned before.
        It is exact, where the angles of high rows are as near as single precision is."""
        angles = distance * self._frequencies
        for name, values in ((COS, np.cos(angles)), (SIN, np.sin(angles))):
            self._angles[name].put(values)
            self._angles[name].upload()

    def _turn(self, keys: Rows, start: int, to: int, count: int) -> None:
        copy_rows(self._card, keys, start, self._place(keys), 0, count)
        self._step.run()
        copy_rows(self._card, self._turned, 0, keys, to, count)


class HostTurning(Turning):
    """In numpy. dim, dtype: of the keys."""

    def __init__(
        self, card: Card, dim: int, dtype: np.dtype[np.floating], rope_theta: float
    ) -> None:
        super().__init__(card)
        self._host = HostRows(card, dim, dtype)
        self._dim = dim
        self._rope_theta = rope_theta
        self._warned = False

    def _begin(self, distance: int) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "keys are turned on the host, which holds up a conversation for a second when its"
                " window slides: `minicpmo engines build` makes the engine that does it on the card"
            )

    def _turn(self, keys: Rows, start: int, to: int, count: int) -> None:
        found = self._host.read(keys, start, count)
        self._host.write(self._turned(found, start, to), keys, to)

    def _turned(self, keys: NDArray[np.float32], at: int, to: int) -> NDArray[np.float32]:
        own = np.arange(keys.shape[2])
        return rotate(keys, *turn(at + own, to + own, self._dim, self._rope_theta))


def _check(engine: Engine, dim: int, dtype: np.dtype[np.floating]) -> None:
    keys = engine.tensors.get(KEYS)
    if keys is None or keys.shape[1:] != (dim,) or keys.dtype != dtype:
        raise EngineError(
            f"{engine.file} turns {keys}, and keys of {dim} numbers in {dtype} are asked for: it is"
            " of another network or recipe; `minicpmo engines build` makes it anew"
        )

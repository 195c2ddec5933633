"""Keys and values of a decoder in numpy: what `model.kv` is to torch, for runtimes without it.

A buffer for each layer, [kv_heads, rows, head_dim], that grows by eighths up to the capacity: all
rows that there are cost time, used or not.
"""

from __future__ import annotations

import math
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import KvFullError

Array = NDArray[np.float32]
SMALLEST = 256
# Buffers on a CPU have a multiple of so many rows.
STEP = 128


class KvBook(ABC):
    """Which rows of a cache are in use, and how they change; where they lie is for others to say.

    Attributes:
        length: rows in use.
    """

    def __init__(self, capacity: int, rope_theta: float) -> None:
        self.capacity = capacity
        self.rope_theta = rope_theta
        self.length = 0

    def check_room(self, rows: int, at: int | None = None) -> None:
        """Raise KvFullError unless rows [at, at + rows) exist; `at` defaults to the length."""
        at = self.length if at is None else at
        if at + rows > self.capacity:
            raise KvFullError.of(self.capacity, at, rows)

    def truncate(self, length: int) -> None:
        """Forget the rows from `length` on. They become zeros: a stage multiplies what it does not
        see with nothing, and of NaN that is NaN."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot cut {self.length} rows to {length}")
        if length < self.length:
            self._wipe(length, self.length)
        self.length = length

    def remove(self, spans: Iterable[tuple[int, int]]) -> None:
        """As `model.kv.KvCache.remove`."""
        gone = np.zeros(self.length, bool)
        for start, stop in spans:
            if start < stop and (stop > self.length or start < 0 or gone[start:stop].any()):
                raise ValueError(
                    f"span [{start}, {stop}) overlaps another or is not within {self.length} rows"
                )
            gone[start:stop] = True
        if gone.any():
            first = int(gone.argmax())
            self._move(np.flatnonzero(~gone[first:]) + first, first)

    def shift(self, start: int, to: int) -> None:
        """As `model.kv.KvCache.shift`."""
        if not 0 <= start <= self.length or to < 0:
            raise ValueError(f"cannot move rows from {start} to {to} of {self.length}")
        self.check_room(self.length - start, at=to)
        self.reserve(to + self.length - start)
        self._move(np.arange(start, self.length), to)

    def more(self, have: int, rows: int) -> int:
        """How many rows buffers of `have` are to have instead, to hold so many: twice as many."""
        return min(max(rows, 2 * have), self.capacity)

    @abstractmethod
    def reserve(self, rows: int) -> None:
        """Have buffers for so many rows."""

    @abstractmethod
    def _wipe(self, start: int, stop: int) -> None:
        """Write zeros into rows [start, stop)."""

    @abstractmethod
    def _move(self, rows: NDArray[np.int64], to: int) -> None:
        """Put rows, of rising numbers, one after the other from `to` on, with their keys rotated;
        behind them nothing is left."""


class KvRows(KvBook):
    """The rows of all layers, written in place.

    Attributes:
        buffers: k and v of each layer in turn, [kv_heads, rows, head_dim], keys rotated for their
            rows.
    """

    def __init__(
        self, layers: int, kv_heads: int, capacity: int, head_dim: int, rope_theta: float
    ) -> None:
        super().__init__(capacity, rope_theta)
        shape = (kv_heads, min(SMALLEST, capacity), head_dim)
        self.buffers = [pages(shape) for _ in range(2 * layers)]

    def more(self, have: int, rows: int) -> int:
        """By an eighth: here rows that are not in use cost as much time as others, and memory."""
        grown = -(-max(rows, have + have // 8) // STEP) * STEP
        return min(grown, self.capacity)

    @property
    def nbytes(self) -> int:
        """Memory that the whole capacity would take, in bytes."""
        heads, _, dim = self.buffers[0].shape
        return len(self.buffers) * heads * self.capacity * dim * 4

    def write(self, rows: Sequence[Array], at: int) -> None:
        """Put k and v of each layer in turn, [kv_heads, T, head_dim], into rows from `at` on."""
        stop = at + rows[0].shape[1]
        self.reserve(stop)
        self.put(0, rows, at)
        self.length = max(self.length, stop)

    def put(self, first: int, rows: Sequence[Array], at: int) -> None:
        """The same for some buffers, from the first on; the length is the caller's to set."""
        for buffer, own in zip(self.buffers[first:], rows, strict=False):
            buffer[:, at : at + own.shape[1]] = own

    def keys(self, last: int) -> Array:
        """Keys of the last rows: [layers, kv_heads, last, head_dim]."""
        return np.stack([k[:, self.length - last : self.length] for k in self.buffers[0::2]])

    def reserve(self, rows: int) -> None:
        have = self.buffers[0].shape[1]
        if rows <= have:
            return
        more = self.more(have, rows) - have
        # One after the other: twice the memory of one layer, not of all.
        for index, buffer in enumerate(self.buffers):
            kv_heads, _, head_dim = buffer.shape
            self.buffers[index] = pages((kv_heads, have + more, head_dim))
            self.buffers[index][:, :have] = buffer

    def _wipe(self, start: int, stop: int) -> None:
        for buffer in self.buffers:
            buffer[:, start:stop] = 0

    def _move(self, rows: NDArray[np.int64], to: int) -> None:
        stop = to + len(rows)
        if len(rows) and rows[0] != to:
            cos, sin = turn(rows, np.arange(to, stop), self.buffers[0].shape[2], self.rope_theta)
            for index, buffer in enumerate(self.buffers):
                moved = buffer[:, rows]
                buffer[:, to:stop] = rotate(moved, cos, sin) if index % 2 == 0 else moved
        self.length = stop


def pages(shape: tuple[int, ...]) -> Array:
    """Zeros, float32, in pages of their own, which are taken when they are first written and given
    back at once. The holes that buffers of growing sizes leave in a heap are never filled."""
    memory = mmap.mmap(-1, math.prod(shape) * np.dtype(np.float32).itemsize)
    return np.frombuffer(memory, np.float32).reshape(shape)


def angles(positions: NDArray[np.int64], head_dim: int, theta: float) -> Array:
    """As `model.rope.angles`."""
    return positions.astype(np.float32)[:, None] * frequencies(head_dim, theta)


def frequencies(head_dim: int, theta: float) -> Array:
    """Radians from one position to the next: float32 [head_dim / 2]."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return (np.float32(1) / np.float32(theta) ** exponents).astype(np.float32)


def turn(
    old: NDArray[np.int64], new: NDArray[np.int64], head_dim: int, theta: float
) -> tuple[Array, Array]:
    """Cosine and sine of the turn from old positions to new ones; see `model.rope.rotate_keys`."""
    before, after = angles(old, head_dim, theta), angles(new, head_dim, theta)
    cos = np.cos(after) * np.cos(before) + np.sin(after) * np.sin(before)
    sin = np.sin(after) * np.cos(before) - np.cos(after) * np.sin(before)
    return cos, sin


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Keys [..., T, D] turned by angles [T, D/2]."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)

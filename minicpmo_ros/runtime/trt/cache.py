"""Keys and values of a stage on the card: what `runtime.kv` is in main memory.

All keys lie before all values, in one piece. It grows by doubling up to the capacity, since all
rows that there are cost time, used or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.runtime.kv import SMALLEST, KvBook, rotate, turn
from minicpmo_ros.runtime.trt.card import Card, Pinned
from minicpmo_ros.runtime.trt.rows import Rows, copy_rows

if TYPE_CHECKING:
    from minicpmo_ros.runtime.trt.program import Programs

# Rows that are moved at once.
PIECE = 256


class DeviceCache(KvBook):
    """See `runtime.stages.Cache`.

    Args:
        heads, dim, dtype: of one tensor, [heads, rows, dim].

    Attributes:
        rows: where they lie.
        programs: what was prepared for runs over exactly this memory.
    """

    def __init__(
        self,
        card: Card,
        layers: int,
        heads: int,
        dim: int,
        dtype: np.dtype[np.floating],
        capacity: int,
        rope_theta: float,
    ) -> None:
        super().__init__(capacity, rope_theta)
        self._card = card
        self._layers = layers
        self._heads = heads
        self._dim = dim
        self._dtype = dtype
        self._host: Pinned | None = None
        self.programs: Programs = {}
        self._have(min(SMALLEST, capacity))

    @property
    def nbytes(self) -> int:
        return 2 * self._layers * self._heads * self.capacity * self._dim * self._dtype.itemsize

    def reserve(self, rows: int) -> None:
        if rows > self.rows.rows:
            before, memory = self.rows, self._memory
            self._have(self.more(before.rows, rows))
            copy_rows(self._card, before, 0, self.rows, 0, self.length)
            self._card.synchronize()
            del memory

    def index(self, tensor: int) -> int:
        """Where the tensor lies that graphs count so: k and v of each layer in turn."""
        layer, is_value = divmod(tensor, 2)
        return self._layers * is_value + layer

    def put(self, new: Rows, at: int, count: int) -> None:
        """Copy the first rows of a step's new ones to row `at` on; the length is the caller's."""
        copy_rows(self._card, new, 0, self.rows, at, count)

    def keys(self, last: int) -> NDArray[np.float32]:
        with self._card.lock:
            self._card.use()
            return self._read(self.rows.part(0, self._layers), self.length - last, last)

    def _have(self, rows: int) -> None:
        sizes = 2 * self._layers, self._heads, rows, self._dim * self._dtype.itemsize
        # Zeros: what is not read is multiplied by nothing, and must not be NaN.
        self._memory = self._card.memory(Rows(0, *sizes).nbytes)
        self.rows = Rows(self._memory.address, *sizes)
        self.programs.clear()

    def _wipe(self, start: int, stop: int) -> None:
        with self._card.lock:
            self._card.use()
            for first in range(start, stop, PIECE):
                zeros = np.zeros((1, 1, min(PIECE, stop - first), 1), np.float32)
                self._write(zeros, self.rows, first)

    def _move(self, rows: NDArray[np.int64], to: int) -> None:
        """Keys go through the host, which turns them: this is done once in many units."""
        with self._card.lock:
            self._card.use()
            for start, stop in _runs(rows):
                if start != to:
                    self._move_run(start, stop, to)
                to += stop - start
        self.length = to

    def _move_run(self, start: int, stop: int, to: int) -> None:
        card, layers = self._card, self._layers
        keys, values = self.rows.part(0, layers), self.rows.part(layers, layers)
        pieces = [(a, min(a + PIECE, stop)) for a in range(start, stop, PIECE)]
        size = min(PIECE, stop - start)
        apart = Rows(0, layers, self._heads, size, keys.width)
        memory = card.memory(apart.nbytes)
        apart = Rows(memory.address, layers, self._heads, size, keys.width)
        # In the order in which nothing is written over that is still to be read.
        for first, end in pieces if to < start else reversed(pieces):
            target, count = to + first - start, end - first
            copy_rows(card, values, first, apart, 0, count)
            copy_rows(card, apart, 0, values, target, count)
            turned = self._turned(self._read(keys, first, count), first, target)
            self._write(turned, keys, target)

    def _turned(self, keys: NDArray[np.float32], at: int, to: int) -> NDArray[np.float32]:
        own = np.arange(keys.shape[2])
        return rotate(keys, *turn(at + own, to + own, self._dim, self.rope_theta))

    def _read(self, tensors: Rows, start: int, count: int) -> NDArray[np.float32]:
        """Rows of some tensors: float32 [tensors, heads, count, dim]."""
        host, place = self._beside(tensors, count)
        copy_rows(self._card, tensors, start, place, 0, count)
        self._card.synchronize()
        return self._view(host, place)[:, :, :count].astype(np.float32)

    def _write(self, values: NDArray[np.float32], tensors: Rows, to: int) -> None:
        count = values.shape[2]
        host, place = self._beside(tensors, count)
        self._view(host, place)[:, :, :count] = values
        copy_rows(self._card, place, 0, tensors, to, count)
        self._card.synchronize()

    def _beside(self, tensors: Rows, count: int) -> tuple[Pinned, Rows]:
        """Memory of the host for some rows of each tensor."""
        sizes = tensors.tensors, tensors.heads, count, tensors.width
        nbytes = Rows(0, *sizes).nbytes
        if self._host is None or self._host.nbytes < nbytes:
            self._host = self._card.pinned(nbytes)
        return self._host, Rows(self._host.address, *sizes)

    def _view(self, host: Pinned, place: Rows) -> NDArray[np.floating]:
        each = host.bytes[: place.nbytes].reshape(place.tensors, place.stride)
        filled = each[:, : place.heads * place.rows * place.width]
        return filled.view(self._dtype).reshape(place.tensors, place.heads, place.rows, self._dim)


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Rising numbers as ranges [start, stop) without a gap."""
    if len(rows):
        ends = np.flatnonzero(np.diff(rows) != 1)
        for first, last in zip((0, *(ends + 1)), (*ends, len(rows) - 1), strict=True):
            yield int(rows[first]), int(rows[last]) + 1

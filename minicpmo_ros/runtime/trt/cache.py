"""Keys and values of a stage on the card: what `runtime.kv` is in main memory.

All keys lie before all values, in one piece. It grows by doubling up to the capacity, since all
rows that there are cost time, used or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.runtime.kv import SMALLEST, KvBook
from minicpmo_ros.runtime.trt.card import Card
from minicpmo_ros.runtime.trt.host_rows import HostRows
from minicpmo_ros.runtime.trt.rows import Rows, clear_rows, copy_rows
from minicpmo_ros.runtime.trt.turning import Turning

if TYPE_CHECKING:
    from minicpmo_ros.runtime.trt.program import Programs


class DeviceCache(KvBook):
    """See `runtime.stages.Cache`.

    Args:
        heads, dim, dtype: of one tensor, [heads, rows, dim].
        turning: moves its rows.

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
        turning: Turning,
    ) -> None:
        super().__init__(capacity, rope_theta)
        self._card = card
        self._layers = layers
        self._heads = heads
        self._dim = dim
        self._dtype = dtype
        self._turning = turning
        self._host = HostRows(card, dim, dtype)
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
            return self._host.read(self.rows.part(0, self._layers), self.length - last, last)

    def _have(self, rows: int) -> None:
        sizes = 2 * self._layers, self._heads, rows, self._dim * self._dtype.itemsize
        # Zeros: what is not read is multiplied by nothing, and must not be NaN.
        self._memory = self._card.memory(Rows(0, *sizes).nbytes)
        self.rows = Rows(self._memory.address, *sizes)
        self.programs.clear()

    def _wipe(self, start: int, stop: int) -> None:
        with self._card.lock:
            self._card.use()
            clear_rows(self._card, self.rows, start, stop - start)

    def _move(self, rows: NDArray[np.int64], to: int) -> None:
        keys, values = (self.rows.part(first, self._layers) for first in (0, self._layers))
        with self._card.lock:
            self._card.use()
            for start, stop in _runs(rows):
                if start != to:
                    self._turning.move(keys, values, start, stop, to)
                to += stop - start
        self.length = to


def _runs(rows: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Rising numbers as ranges [start, stop) without a gap."""
    if len(rows):
        ends = np.flatnonzero(np.diff(rows) != 1)
        for first, last in zip((0, *(ends + 1)), (*ends, len(rows) - 1), strict=True):
            yield int(rows[first]), int(rows[last]) + 1

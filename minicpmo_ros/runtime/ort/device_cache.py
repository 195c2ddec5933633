"""Keys and values of a stage where onnxruntime runs it: what `runtime.kv.KvRows` is in numpy.

They never leave that place: graphs of `runtime.ort.device_rows` write, move and turn rows there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.runtime.kv import SMALLEST, KvBook, turn
from minicpmo_ros.runtime.ort.device import Device, numbers
from minicpmo_ros.runtime.stages import Array


class OrtCache(KvBook):
    """See `runtime.stages.Cache`.

    Args:
        dtype: float32 or float16, of the graphs.

    Attributes:
        buffers: k and v of each layer in turn, OrtValues [kv_heads, rows, head_dim], in memory of
            their own until there are more rows.
        passes: what was bound to exactly these buffers, by the number of the file.
    """

    def __init__(
        self,
        device: Device,
        layers: int,
        kv_heads: int,
        capacity: int,
        head_dim: int,
        rope_theta: float,
        dtype: np.dtype[Any],
    ) -> None:
        super().__init__(capacity, rope_theta)
        self._device = device
        self._dtype = dtype
        self._head_dim = head_dim
        shape = kv_heads, min(SMALLEST, capacity), head_dim
        # Zeros: what is not seen is multiplied by nothing, and must not be NaN.
        self.buffers = [device.put(np.zeros(shape, dtype)) for _ in range(2 * layers)]
        self.passes: dict[int, Any] = {}

    @property
    def rows(self) -> int:
        """Of the buffers, used or not."""
        rows: int = self.buffers[0].shape()[1]
        return rows

    @property
    def nbytes(self) -> int:
        """Memory that the whole capacity would take, in bytes."""
        heads, _, dim = self.buffers[0].shape()
        return len(self.buffers) * heads * self.capacity * dim * self._dtype.itemsize

    def write(self, rows: Sequence[Array], at: int) -> None:
        """As `KvRows.write`."""
        count = rows[0].shape[1]
        self.reserve(at + count)
        self._put([self._device.put(own.astype(self._dtype)) for own in rows], at, count)
        self.length = max(self.length, at + count)

    def keys(self, last: int) -> NDArray[np.float32]:
        """Keys of the last rows: [layers, kv_heads, last, head_dim]. Whole buffers cross for it."""
        found = [k.numpy()[:, self.length - last : self.length] for k in self.buffers[0::2]]
        return np.stack(found).astype(np.float32)

    def reserve(self, rows: int) -> None:
        have = self.rows
        if rows <= have:
            return
        more = self.more(have, rows) - have
        self.passes.clear()  # they hold on to the buffers
        # One after the other: twice the memory of one layer, not of all.
        for index in range(len(self.buffers)):
            self.buffers[index] = self._device.grown(self.buffers[index], more, self._dtype)

    def _wipe(self, start: int, stop: int) -> None:
        heads, _, dim = self.buffers[0].shape()
        zeros = self._device.put(np.zeros((heads, stop - start, dim), self._dtype))
        self._put([zeros] * len(self.buffers), start, stop - start)

    def _put(self, rows: Sequence[Any], at: int, count: int) -> None:
        session = self._device.writer(1, self._dtype)
        binding = session.io_binding()
        where = self._device.put(numbers(at, count))
        binding.bind_ortvalue_input("numbers", where)
        for buffer, own in zip(self.buffers, rows, strict=True):
            binding.bind_ortvalue_input("cache.0", buffer)
            binding.bind_ortvalue_input("rows.0", own)
            binding.bind_ortvalue_output("out.0", buffer)
            self._device.run(session, binding)

    def _move(self, rows: NDArray[np.int64], to: int) -> None:
        stop = to + len(rows)
        if len(rows) and rows[0] != to:
            angle = turn(rows, np.arange(to, stop), self._head_dim, self.rope_theta)
            for index, buffer in enumerate(self.buffers):
                is_key = index % 2 == 0
                self._device.move(buffer, rows, to, self._dtype, angle if is_key else None)
        self.length = stop

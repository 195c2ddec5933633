"""Rows of a cache in main memory: to look at, and where no engine turns keys on the card."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.runtime.trt.card import Card, Pinned
from minicpmo_ros.runtime.trt.rows import Rows, copy_rows


class HostRows:
    """Reads and writes rows of tensors [heads, rows, dim] on the card, through pinned memory.

    dtype: of what lies on the card.
    """

    def __init__(self, card: Card, dim: int, dtype: np.dtype[np.floating]) -> None:
        self._card = card
        self._dim = dim
        self._dtype = dtype
        self._host: Pinned | None = None

    def read(self, tensors: Rows, start: int, count: int) -> NDArray[np.float32]:
        """Rows of all tensors: [tensors, heads, count, dim]."""
        host, place = self._beside(tensors, count)
        copy_rows(self._card, tensors, start, place, 0, count)
        self._card.synchronize()
        return self._view(host, place)[:, :, :count].astype(np.float32)

    def write(self, values: NDArray[np.float32], tensors: Rows, to: int) -> None:
        """The same [tensors, heads, count, dim] into the rows from `to` on."""
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

    def _view(self, host: Pinned, place: Rows) -> NDArray[Any]:
        each = host.bytes[: place.nbytes].reshape(place.tensors, place.stride)
        filled = each[:, : place.heads * place.rows * place.width]
        return filled.view(self._dtype).reshape(place.tensors, place.heads, place.rows, self._dim)

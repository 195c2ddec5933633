"""A run of engines on certain memory: what is uploaded, executed and downloaded, in this order.

One that will come again with the same sizes and addresses, a token of a decoder, becomes a CUDA
graph: launched as one, where each kernel would cost the processor a call. What differs from token
to token lies in the memory that is uploaded; where the token's rows go is not in the graph, which
leaves them in a place of their own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.trt.card import Card, Graph, Memory, Pinned
from minicpmo_ros.runtime.trt.engine import Execution, Shape
from minicpmo_ros.runtime.trt.rows import Rows

_log = logging.getLogger(__name__)


class Crossing:
    """A tensor that goes from the host to the card, or back, through pinned memory.

    Args:
        nbytes: of the largest that will.

    Attributes:
        shape: of what is in it.
    """

    def __init__(self, card: Card, dtype: np.dtype[Any], nbytes: int) -> None:
        self._card = card
        self._dtype = dtype
        self._device: Memory = card.memory(nbytes)
        self._host: Pinned = card.pinned(nbytes)
        self.shape: Shape = ()

    @property
    def address(self) -> int:
        return self._device.address

    def put(self, array: NDArray[Any]) -> None:
        """Take an array, in the dtype of the engine. On the card it is after `upload`."""
        self.shape = array.shape
        self._array[...] = array

    def get(self) -> NDArray[Any]:
        """A copy of what was downloaded; float32 for any floating dtype."""
        array = self._array
        return array.astype(np.float32 if array.dtype.kind == "f" else array.dtype)

    def upload(self) -> None:
        self._card.copy(self.address, self._host.address, self._nbytes)

    def download(self) -> None:
        self._card.copy(self._host.address, self.address, self._nbytes)

    @property
    def _nbytes(self) -> int:
        return math.prod(self.shape) * self._dtype.itemsize

    @property
    def _array(self) -> NDArray[Any]:
        return self._host.bytes[: self._nbytes].view(self._dtype).reshape(self.shape)


@dataclass(frozen=True)
class Step:
    """One engine's part in a program."""

    execution: Execution
    shapes: dict[str, Shape]
    addresses: dict[str, int]

    def run(self) -> None:
        self.execution.run(self.shapes, self.addresses)


@dataclass
class Program:
    """See the module's first lines.

    Attributes:
        results: with the shape that this program gives each.
        new: where it leaves the rows for a cache.
        recurs: whether it is worth a graph.
    """

    card: Card
    given: Sequence[Crossing]
    steps: Sequence[Step]
    results: Sequence[tuple[Crossing, Shape]]
    recurs: bool
    new: Rows | None = None
    _ran: bool = False
    _graph: Graph | None = field(default=None, repr=False)

    def run(self) -> None:
        """Put it on the stream. The first time as it is: kernels are loaded and compiled then,
        which must not happen while a graph is captured."""
        for crossing, shape in self.results:
            crossing.shape = shape
        if self._graph is None and self.recurs and self._ran:
            self._capture()
        if self._graph is not None:
            self._graph.launch()
        else:
            self._enqueue()
        self._ran = True

    def _enqueue(self) -> None:
        for crossing in self.given:
            crossing.upload()
        for step in self.steps:
            step.run()
        for crossing, _ in self.results:
            crossing.download()

    def _capture(self) -> None:
        self.recurs = all(step.execution.can_be_captured for step in self.steps)
        if not self.recurs:
            _log.warning("TensorRT cannot be captured in a CUDA graph here: tokens cost more")
            return
        try:
            with self.card.captured() as graph:
                self._enqueue()
            self._graph = graph
        except EngineError as error:
            self.recurs = False
            _log.warning("no CUDA graph, tokens cost more: %s", error)


Programs = dict[Hashable, Program]

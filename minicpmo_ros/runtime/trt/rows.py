"""Rows of several tensors in one piece of memory, and how they are copied from one to another.

What all layers of a decoder keep lies together, and so do the rows that a step adds: one copy of
strips then moves the rows of all layers and heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minicpmo_ros.runtime.trt.card import ALIGNMENT, Card

# Rows of each layer and head that are moved at once: 9 MB of keys at full size, which a card's own
# cache holds. Memory for so many has no gaps between layers (`Rows.stride`), whatever their width.
PIECE = 128


@dataclass(frozen=True)
class Rows:
    """Tensors [heads, rows, width bytes], one after the other from an address on."""

    address: int
    tensors: int
    heads: int
    rows: int
    width: int

    @property
    def nbytes(self) -> int:
        return self.tensors * self.stride

    @property
    def stride(self) -> int:
        """Bytes from one tensor to the next: TensorRT takes addresses of this alignment alone."""
        return -(-self._tensor_bytes // ALIGNMENT) * ALIGNMENT

    def of(self, tensor: int) -> int:
        """Address of a tensor."""
        return self.address + tensor * self.stride

    def part(self, first: int, count: int) -> Rows:
        """Some of the tensors."""
        return Rows(self.of(first), count, self.heads, self.rows, self.width)

    def strips(self, other: Rows) -> Iterator[tuple[int, int, int]]:
        """Address here, address there and number of strips that lie a pitch apart in both."""
        if self.stride == self._tensor_bytes and other.stride == other._tensor_bytes:
            yield self.address, other.address, self.tensors * self.heads
        else:
            for tensor in range(self.tensors):
                yield self.of(tensor), other.of(tensor), self.heads

    @property
    def _tensor_bytes(self) -> int:
        return self.heads * self.rows * self.width


def clear_rows(card: Card, rows: Rows, start: int, count: int) -> None:
    """Write zeros into `count` rows of each tensor and head, from row `start` on."""
    width = rows.width
    for place, _, strips in rows.strips(rows):
        card.clear_strips(place + start * width, rows.rows * width, count * width, strips)


def copy_rows(card: Card, source: Rows, start: int, target: Rows, to: int, count: int) -> None:
    """Copy `count` rows of each tensor and head, from row `start` of the one to row `to` of the
    other. They must not overlap."""
    width = source.width
    if not count:
        return
    for here, there, strips in source.strips(target):
        card.copy_strips(
            there + to * width,
            target.rows * width,
            here + start * width,
            source.rows * width,
            count * width,
            strips,
        )

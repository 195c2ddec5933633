"""The keys and values of what a decoder has read, in two buffers that never move.

A token's row is its position. So when tokens in the middle are forgotten, the later ones move up,
and their keys, which are stored rotated, are turned to their new positions (a sliding window).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from minicpmo_ros.errors import KvFullError
from minicpmo_ros.model.rope import rotate_keys

# Rows of all layers that are turned together: small enough that what is computed stays in a cache
# of the processor.
MOVED_AT_ONCE = 32


class KvCache:
    """Keys and values of `length` tokens, and room for `capacity`.

    Attributes:
        k, v: [layers, kv_heads, capacity, head_dim]. Keys are rotated for their rows. A page of
            memory is taken only when a row in it is first written.
        length: rows in use, [0, length).

    Raises:
        KvFullError: by whatever would go past `capacity`, before anything is written.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        capacity: int,
        head_dim: int,
        rope_theta: float,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        # Zeros, not empty: rows past the length are read where a mask hides them, and 0 * NaN is
        # NaN.
        shape = (layers, kv_heads, capacity, head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self.rope_theta = rope_theta
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.k.shape[2]

    @property
    def room(self) -> int:
        """Rows that are free."""
        return self.capacity - self.length

    @property
    def nbytes(self) -> int:
        """Memory of both buffers, in bytes."""
        return self.k.nbytes + self.v.nbytes

    def check_room(self, rows: int, at: int | None = None) -> None:
        """Raise KvFullError unless rows [at, at + rows) exist; `at` defaults to the length."""
        at = self.length if at is None else at
        if at + rows > self.capacity:
            raise KvFullError.of(self.capacity, at, rows)

    def start(self, rows: int, at: int | None = None) -> int:
        """The first of so many rows that are to be written: `at`, or the one behind those in use.

        Raises:
            ValueError: `at` would leave a gap.
            KvFullError: they do not fit.
        """
        at = self.length if at is None else at
        if not 0 <= at <= self.length:
            raise ValueError(f"row {at} is not behind the {self.length} rows in use")
        self.check_room(rows, at)
        return at

    def truncate(self, length: int) -> None:
        """Forget the rows from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot cut {self.length} rows to {length}")
        self.length = length

    def clear(self) -> None:
        self.length = 0

    def remove(self, spans: Iterable[tuple[int, int]]) -> None:
        """Forget rows [start, stop) of each span; what is left lies in rows 0, 1, 2 and so on.

        Args:
            spans: in any order, apart from each other, and within [0, length).
        """
        kept: list[int] = []
        first = stop_before = 0
        for index, (start, stop) in enumerate(sorted(span for span in spans if span[0] < span[1])):
            if start < stop_before or stop > self.length:
                raise ValueError(
                    f"span [{start}, {stop}) overlaps another or is not within {self.length} rows"
                )
            if index == 0:
                first = start
            else:
                kept.extend(range(stop_before, start))
            stop_before = stop
        if stop_before == 0:
            return
        kept.extend(range(stop_before, self.length))
        self._move(kept, first)

    def shift(self, start: int, to: int) -> None:
        """Move rows [start, length) so that they begin at `to`, earlier or later.

        Moved later, they leave a gap [start, to) of old values, to be written over by `extend`
        with `at`: so a prompt can be replaced by a longer one in front of what follows it.
        """
        if not 0 <= start <= self.length or to < 0:
            raise ValueError(f"cannot move rows from {start} to {to} of {self.length}")
        self.check_room(self.length - start, at=to)
        self._move(list(range(start, self.length)), to)

    @torch.inference_mode()
    def _move(self, rows: list[int], to: int) -> None:
        """Put `rows`, which ascend, into [to, to + len(rows)), which then end the cache."""
        stop = to + len(rows)
        if rows and rows[0] != to:
            old = torch.tensor(rows, device=self.k.device).split(MOVED_AT_ONCE)
            new = torch.arange(to, stop, device=self.k.device).split(MOVED_AT_ONCE)
            blocks = list(zip(old, new, strict=True))
            # No block may land on rows that are still to be moved.
            for source, target in blocks if to < rows[0] else reversed(blocks):
                keys = rotate_keys(self.k.index_select(2, source), source, target, self.rope_theta)
                self.k.index_copy_(2, target, keys)
                self.v.index_copy_(2, target, self.v.index_select(2, source))
        self.length = stop

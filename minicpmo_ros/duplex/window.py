"""What a conversation has read: its prompt, then unit after unit, and what of them is kept.

Layout of the cache: prefix | previous | suffix | units. `previous` is what the robot said in units
that are forgotten; it is empty until then, and always in mode basic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minicpmo_ros.duplex.config import WindowConfig
from minicpmo_ros.errors import KvFullError
from minicpmo_ros.runtime.api import Context, Part


@dataclass(frozen=True)
class KeptUnit:
    """rows: of the cache. said: ids of the text that the robot said in it."""

    rows: int
    said: tuple[int, ...] = ()


class Window:
    """Slides over the units of one context.

    Args:
        context: of the language model, empty.
        marker: ids that stand before what was said in forgotten units.
    """

    def __init__(self, context: Context, config: WindowConfig, marker: Sequence[int]) -> None:
        self.context = context
        self.config = config
        self.units: deque[KeptUnit] = deque()
        self.previous: list[int] = []
        self.forgotten = 0
        self._marker = list(marker)
        self._prefix_rows = 0
        self._suffix: list[int] = []

    @property
    def preserved(self) -> int:
        """Rows that are never forgotten."""
        return self._prefix_rows + len(self.previous) + len(self._suffix)

    def open(self, prefix: Sequence[Part], suffix: Sequence[int]) -> None:
        """Read the prompt into the emptied context; raises KvFullError."""
        self.context.truncate(0)
        self.units.clear()
        self.previous = []
        self.forgotten = 0
        self._suffix = list(suffix)
        parts = [part for part in prefix if len(part)]
        self._prefix_rows = sum(len(part) for part in parts)
        if parts or suffix:
            self.context.read(*parts, *([self._suffix] if suffix else []))

    def add(self, unit: KeptUnit) -> None:
        """The unit at the end of the context is whole; forget what is too old."""
        self.units.append(unit)
        config = self.config
        if config.mode == "basic" and self.context.length > config.high_tokens:
            self._forget_while(lambda length, count: length > config.low_tokens)
        elif config.mode == "context" and len(self.units) > config.max_units:
            self._forget_while(lambda length, count: count > config.max_units)

    def make_room(self, rows: int) -> None:
        """Forget old units, ahead of time, until so many more rows fit.

        Raises:
            KvFullError: mode is off, or all units together do not make room.
        """
        capacity = self.context.capacity
        # What is remembered of forgotten units may grow as they go.
        rows += len(self._marker) if self.config.mode == "context" else 0
        if self.context.length + rows > capacity and self.config.mode != "off":
            self._forget_while(lambda length, count: length + rows > capacity)
        if self.context.length + rows > capacity:
            hint = "" if self.config.mode != "off" else "; let a window slide (basic or context)"
            raise KvFullError(
                f"the KV cache holds {capacity} tokens; {self.context.length} are in use, and"
                f" {rows} more do not fit{hint}, or give it a larger capacity"
            )

    def _forget_while(self, too_much: Callable[[int, int], bool]) -> None:
        """Forget the oldest units while too_much(rows, units) of what would be left."""
        gone: list[KeptUnit] = []
        previous = list(self.previous)
        length = self.context.length
        while self.units and too_much(length, len(self.units)):
            unit = self.units.popleft()
            gone.append(unit)
            length -= unit.rows
            if self.config.mode == "context" and unit.said:
                before = len(previous)
                previous = self._remembered(previous, unit.said)
                length += len(previous) - before
        if gone:
            self.forgotten += len(gone)
            self._drop(sum(unit.rows for unit in gone), previous)

    def _remembered(self, previous: Sequence[int], said: Sequence[int]) -> list[int]:
        words = [*previous[len(self._marker) :], *said]
        kept = words[max(len(words) - self.config.previous_tokens, 0) :]
        return [*self._marker, *kept] if kept else []

    def _drop(self, rows: int, previous: list[int]) -> None:
        start = self.preserved
        if previous == self.previous:
            self.context.remove([(start, start + rows)])
            return
        # The prompt grows in front of units that are already read: move them, then write it.
        self.previous = previous
        self.context.shift(start + rows, self.preserved)
        self.context.read([*previous, *self._suffix], at=self._prefix_rows)

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


@dataclass(frozen=True)
class _Plan:
    """units: how many to forget, the oldest. left: rows then. previous: what is remembered."""

    units: int
    left: int
    previous: list[int]


class Window:
    """Slides over the units of one context.

    Args:
        context: of the language model, empty.
        marker: ids that stand before what was said in forgotten units.
        bare_marker: they stand there also where nothing of it is kept, as in the reference.
    """

    def __init__(
        self,
        context: Context,
        config: WindowConfig,
        marker: Sequence[int],
        *,
        bare_marker: bool = False,
    ) -> None:
        self.context = context
        self.config = config
        self.units: deque[KeptUnit] = deque()
        self.previous: list[int] = []
        self.forgotten = 0
        self._marker = list(marker)
        self._bare_marker = bare_marker
        self._prefix_rows = 0
        self._suffix: list[int] = []

    @property
    def preserved(self) -> int:
        """Rows that are never forgotten."""
        return self._prefix_rows + len(self.previous) + len(self._suffix)

    def open(self, prefix: Sequence[Part], suffix: Sequence[int]) -> None:
        """Read the prompt into the emptied context; raises KvFullError, with all as before."""
        parts = [part for part in prefix if len(part)]
        rows = sum(map(len, parts))
        if rows + len(suffix) > self.context.capacity:
            raise KvFullError(
                f"the prompt has {rows + len(suffix)} tokens, the KV cache holds"
                f" {self.context.capacity}; shorten it or its voice, or give a larger capacity"
            )
        self.context.truncate(0)
        self.units.clear()
        self.previous = []
        self.forgotten = 0
        self._suffix = list(suffix)
        self._prefix_rows = rows
        if parts or suffix:
            self.context.read(*parts, *([self._suffix] if suffix else []))

    def add(self, unit: KeptUnit) -> None:
        """The unit at the end of the context is whole; forget what is too old."""
        self.units.append(unit)
        config = self.config
        if config.mode == "basic" and self.context.length > config.high_tokens:
            self._forget(self._plan(lambda length, count: length > config.low_tokens))
        elif config.mode == "context" and len(self.units) > config.max_units:
            self._forget(self._plan(lambda length, count: count > config.max_units))

    def drop_last(self, units: int) -> None:
        """Strike out the last units, whose rows somebody else takes out of the context."""
        for _ in range(units):
            self.units.pop()

    def has_room(self, rows: int) -> bool:
        """Whether so many more rows fit as it is."""
        return self.context.length + rows <= self.context.capacity

    def make_room(self, rows: int) -> None:
        """Forget old units, ahead of time, until so many more rows fit.

        Raises:
            KvFullError: mode is off, or all units together do not make room; none was forgotten.
        """
        if self.has_room(rows):
            return
        capacity, length = self.context.capacity, self.context.length
        if self.config.mode == "off":
            raise KvFullError(
                f"the KV cache holds {capacity} tokens; {length} are in use, and {rows} more do"
                " not fit; let a window slide (basic or context), or give it a larger capacity"
            )
        plan = self._plan(lambda length, count: length + rows > capacity)
        if plan.left + rows > capacity:
            raise KvFullError(
                f"the KV cache holds {capacity} tokens; {rows} more would not fit if all"
                f" {plan.units} units were forgotten ({plan.left} would stay); give it a larger"
                " capacity"
            )
        self._forget(plan)

    def _plan(self, too_much: Callable[[int, int], bool]) -> _Plan:
        """Forget the oldest units while too_much(rows, units) of what would be left."""
        count, length, previous = 0, self.context.length, self.previous
        for unit in self.units:
            if not too_much(length, len(self.units) - count):
                break
            count += 1
            length -= unit.rows
            if self.config.mode == "context" and unit.said:
                before = len(previous)
                previous = self._remembered(previous, unit.said)
                length += len(previous) - before
        return _Plan(count, length, previous)

    def _forget(self, plan: _Plan) -> None:
        if plan.units:
            rows = sum(self.units.popleft().rows for _ in range(plan.units))
            self.forgotten += plan.units
            self._drop(rows, plan.previous)

    def _remembered(self, previous: Sequence[int], said: Sequence[int]) -> list[int]:
        words = [*previous[len(self._marker) :], *said]
        kept = words[max(len(words) - self.config.previous_tokens, 0) :]
        return [*self._marker, *kept] if kept or self._bare_marker else []

    def _drop(self, rows: int, previous: list[int]) -> None:
        start = self.preserved
        if previous == self.previous:
            self.context.remove([(start, start + rows)])
            return
        # The prompt grows in front of units that are already read: move them, then write it.
        self.previous = previous
        self.context.shift(start + rows, self.preserved)
        self.context.read([*previous, *self._suffix], at=self._prefix_rows)

"""Which pictures are worth a look before their unit is closed."""

from __future__ import annotations

from collections import deque


class EarlyLook:
    """Guesses, from how fast pictures come, whether one will be among the newest of its unit.

    Only time depends on the guess: which pictures a unit has is decided when it closes. A camera of
    30 Hz would otherwise have each of them encoded for nothing.

    Args:
        per_unit: newest pictures that a unit takes.
    """

    def __init__(self, per_unit: int) -> None:
        self._per_unit = per_unit
        self._gaps: deque[int] = deque(maxlen=8)
        self._last_ns: int | None = None
        self.end_ns: int | None = None
        """End of the unit that is open; None before the first has closed."""
        self._length_ns = 0

    def unit_closed(self, start_ns: int, end_ns: int) -> None:
        """The next unit has begun."""
        self._length_ns = end_ns - start_ns
        self.end_ns = end_ns + self._length_ns

    def worth(self, stamp_ns: int) -> bool:
        """Whether to look at this picture now. Stamps that do not grow are never worth it."""
        last_ns, self._last_ns = self._last_ns, stamp_ns
        if last_ns is not None:
            if stamp_ns <= last_ns:
                return False
            self._gaps.append(stamp_ns - last_ns)
        if not self._per_unit or self.end_ns is None:
            return False
        if stamp_ns < self.end_ns - self._length_ns:
            return False
        gap_ns = min(self._gaps, default=self._length_ns)
        # A picture of the unit after that is the first of many, unless they come slowly.
        end_ns = self.end_ns if stamp_ns < self.end_ns else self.end_ns + self._length_ns
        return stamp_ns + self._per_unit * gap_ns >= end_ns

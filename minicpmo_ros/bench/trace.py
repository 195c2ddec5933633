"""What happened when inside a measured process: rows of numbers, written to one file at its end.

The memory is taken and touched at the beginning, so that recording costs a microsecond and the
process does not grow by being watched.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from pathlib import Path

import numpy as np


class Event(IntEnum):
    """A kind of row, and what its key and value are. Times are ns of ROS time.

    What goes out is timed before it is published, except for the decision: that is when it is out.
    """

    MIC_OUT = 0  # key: sequence; value: end of the chunk's capture
    MIC_IN = 1  # key: sequence; at the omni node
    PICTURE_OUT = 2  # key: stamp
    PICTURE_IN = 3  # key: stamp; at the omni node
    DECISION_OUT = 4  # key: unit; value: the unit's end
    BRAIN = 5  # key: unit; value: wall time of the brain in ns
    FILLED = 6  # key: unit; value: ns of sound that did not come
    SPEECH_OUT = 7  # key: turn; value: planned time; of a turn's first chunk
    SPEECH_IN = 8  # key: turn; value: 1 where nothing else waited; at the speaker node
    STARTED = 9  # key: turn; value: when the first sample sounds; at: when that was said
    SILENT = 10  # key: turn; value: end of the last sample that sounds; of a turn cut off
    INTERRUPT_IN = 11  # key: the epoch that it began; at the omni node
    EPOCH_IN = 12  # key: epoch; at the speaker node


class Trace:
    """Rows (event, key, at_ns, value), int64; any thread may add. What does not fit is counted."""

    def __init__(self, capacity: int) -> None:
        self._rows = np.full((capacity, 4), -1, np.int64)
        self._count = 0
        self._lock = threading.Lock()
        self.lost = 0

    def add(self, event: Event, key: int, at_ns: int, value: int = 0) -> None:
        with self._lock:
            if self._count == len(self._rows):
                self.lost += 1
                return
            self._rows[self._count] = (event, key, at_ns, value)
            self._count += 1

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, self._rows[: self._count])


class Rows:
    """A trace that is over, limited to what was recorded in [from_ns, to_ns)."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    @classmethod
    def load(cls, path: Path) -> Rows:
        return cls(np.load(path))

    def between(self, from_ns: int, to_ns: int) -> Rows:
        at = self._rows[:, 2]
        return Rows(self._rows[(at >= from_ns) & (at < to_ns)])

    def at(self, event: Event) -> dict[int, int]:
        """When it happened, by key; of a key that comes twice the first."""
        return {int(key): int(at) for _, key, at, _ in self._of(event)[::-1]}

    def value(self, event: Event) -> dict[int, int]:
        """Its value, by key."""
        return {int(key): int(value) for _, key, _, value in self._of(event)[::-1]}

    def _of(self, event: Event) -> np.ndarray:
        return self._rows[self._rows[:, 0] == event]

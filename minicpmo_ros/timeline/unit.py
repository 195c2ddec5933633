"""The unit: one second of what was heard and seen, the step in which every brain works."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicpmo_ros.messages import Picture


@dataclass(frozen=True, eq=False)
class Unit:
    """One closed unit [start_ns, end_ns) of the shared timeline.

    samples: int16 [rate_hz * length], mono at rate_hz, silence where nothing was captured.
    filled: sample ranges [start, stop) of that silence. pictures: oldest first, newest last.
    muted: the microphone was muted at its source during the unit.
    """

    index: int
    start_ns: int
    end_ns: int
    samples: np.ndarray
    rate_hz: int
    pictures: tuple[Picture, ...] = ()
    filled: tuple[tuple[int, int], ...] = ()
    muted: bool = False

    @property
    def filled_ms(self) -> float:
        return sum(stop - start for start, stop in self.filled) * 1000.0 / self.rate_hz

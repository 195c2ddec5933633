"""Speech on a grid of 200 ms: the ticks in which somebody speaks.

A segment's edges go to the nearest edge between two ticks (a tie to the later one), and a segment
has at least one tick. So two speakers who follow each other do not overlap, and latencies are right
on average; each alone is right to a tick.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TICK_S = 0.2
_TIE = 1e-6  # of a tick: 0.7 / 0.2 is a little below 3.5


@dataclass(frozen=True)
class Run:
    """Ticks [start, stop) without a pause, and the seconds they stand for."""

    start: int
    stop: int
    start_s: float
    stop_s: float
    finished: bool = False

    def holds(self, tick: int) -> bool:
        return self.start <= tick < self.stop


def tick_at(t_s: float) -> int:
    """The edge between ticks that is nearest: edge k is at 0.2 k seconds."""
    return math.floor(t_s / TICK_S + 0.5 + _TIE)


def ticks_in(window_s: float) -> int:
    """Whole ticks of a window."""
    return math.floor(window_s / TICK_S + _TIE)


def runs_of(stretches: Iterable[tuple[float, float, bool]], ticks: int) -> list[Run]:
    """Stretches (start s, stop s, finished) as runs within [0, ticks).

    Those that touch or overlap become one, which is finished if its last one is.
    """
    runs: list[Run] = []
    for start_s, stop_s, finished in sorted(stretches):
        start = max(0, tick_at(start_s))
        stop = min(ticks, max(start + 1, tick_at(stop_s)))
        if start >= stop or stop_s <= 0:
            continue
        new = Run(start, stop, start_s, stop_s, finished)
        if runs and start <= runs[-1].stop:
            before = runs.pop()
            last = new if new.stop_s >= before.stop_s else before
            new = Run(
                before.start, max(before.stop, stop), before.start_s, last.stop_s, last.finished
            )
        runs.append(new)
    return runs


def run_at(runs: Sequence[Run], tick: int) -> Run | None:
    """The run that holds the tick."""
    return next((run for run in runs if run.holds(tick)), None)


def first_from(runs: Sequence[Run], tick: int) -> Run | None:
    """The first run that starts at the tick or later; runs are in order of time."""
    return next((run for run in runs if run.start >= tick), None)

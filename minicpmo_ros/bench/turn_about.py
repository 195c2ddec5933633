"""Several ways to do one thing, timed in turn, so that what else a machine does falls on all. No
torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Work = Callable[[], object]

# Threads of some libraries spin for a while after their work, and must not do so in another's turn.
PAUSE_S = 0.02


def turn_about(works: Mapping[str, Work], rounds: int = 9) -> dict[str, float]:
    """Median time of each, in ms, after a round to warm up."""
    spans: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            time.sleep(PAUSE_S)
            began = time.perf_counter()
            work()
            if number:
                spans[name].append((time.perf_counter() - began) * 1e3)
    return {name: median(values) for name, values in spans.items()}

"""How long the stages of a unit took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages(dict[str, float]):
    """Wall time of each stage, in ms, in the order in which they began."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what runs inside to a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self[stage] = self.get(stage, 0.0) + (time.perf_counter() - began) * 1000.0

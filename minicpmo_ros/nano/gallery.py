"""Pictures without episodes, to learn to see from: some new ones in every step, more of them again.

Drawing a picture takes longer than learning from it, and it is not exhausted by being seen once.
"""

from __future__ import annotations

import numpy as np

from minicpmo_ros.nano.examples import Seen
from minicpmo_ros.nano.lessons import Studio

# Steps whose pictures may be shown again.
KEPT = 48


class Gallery:
    """What a step shows follows from the seed, the process's rank and the step's number alone, so
    that a run goes on from any moment; after a pause what was kept is drawn once more.

    new: pictures that are drawn in every step.
    """

    def __init__(self, studio: Studio, seed: int, rank: int, new: int) -> None:
        self._studio, self._seed, self._rank, self._new = studio, seed, rank, max(new, 1)
        self._drawn: dict[int, list[Seen]] = {}

    def show(self, step: int, count: int) -> list[Seen]:
        """The new pictures of a step, and so many of those before it that it is `count` of them,
        or all where there are less."""
        first = max(0, step - KEPT)
        self._drawn = {
            one: self._drawn.get(one) or self._studio.loose(self._rng(5, one), self._new)
            for one in range(first, step + 1)
        }
        before = [seen for one in range(first, step) for seen in self._drawn[one]]
        again = self._rng(6, step).permutation(len(before))[: max(count - self._new, 0)]
        return [*self._drawn[step][:count], *(before[int(place)] for place in again)]

    def _rng(self, what: int, step: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, what, step, self._rank])

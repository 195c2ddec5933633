"""The noise that speech is made from: a function of seed and place alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 64


class Noise:
    """Standard normal frames, as many as are asked for; the same seed gives the same."""

    def __init__(self, mels: int, seed: int) -> None:
        self.mels = mels
        self.seed = seed

    def frames(self, start: int, count: int) -> NDArray[np.float32]:
        """Of places [start, start + count): float32 [count, mels]."""
        first, last = start // BLOCK, -(-(start + count) // BLOCK)
        blocks = [self._block(index) for index in range(first, max(last, first + 1))]
        begin = start - first * BLOCK
        return np.concatenate(blocks)[begin : begin + count]

    def _block(self, index: int) -> NDArray[np.float32]:
        random = np.random.default_rng([self.seed, index])
        return random.standard_normal((BLOCK, self.mels), dtype=np.float32)

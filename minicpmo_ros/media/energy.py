"""Voice activity without a network: sound that stands out from the noise of the last seconds.

It needs nothing installed. It hears speech in a steady surrounding, and takes any other sound that
begins there for speech too, until it has lasted for three seconds.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from minicpmo_ros.media.loudness import rms_dbfs

# The noise floor is the quietest short-term level of the last 6 blocks of 0.5 s: speech pauses
# more often than that, noise does not (minimum statistics, R. Martin 2001, in its plainest form).
_BLOCKS = 6
_BLOCK_WINDOWS = 16
_SMOOTHING = 0.5
# Before anything was heard: an ordinary room. Below the second level everything is silence.
_FIRST_FLOOR_DBFS = -60.0
_LEAST_FLOOR_DBFS = -75.0
# Speech is this far above the floor where its probability is one half, and so steep around it.
_MARGIN_DB = 10.0
_SLOPE_DB = 2.0
# First difference: takes the hum of mains and motors away, and much of wind.
_PRE_EMPHASIS = 0.97


class EnergyModel:
    """Follows the noise floor and compares each window with it."""

    name = "energy"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was heard."""
        self._last = 0.0
        self._smoothed_dbfs: float | None = None
        self._block_minima = deque([_FIRST_FLOOR_DBFS] * _BLOCKS, maxlen=_BLOCKS)
        self._minimum = math.inf
        self._windows = 0

    @property
    def floor_dbfs(self) -> float:
        """Level of the noise, after pre-emphasis."""
        return max(min(*self._block_minima, self._minimum), _LEAST_FLOOR_DBFS)

    def probability(self, window: np.ndarray) -> float:
        """Of speech, 0 to 1, in int16 [samples] at 16 kHz."""
        samples = window.astype(np.float64)
        before = np.concatenate([[self._last], samples[:-1]])
        self._last = float(samples[-1])
        level = rms_dbfs(samples - _PRE_EMPHASIS * before)
        if self._smoothed_dbfs is None:
            self._smoothed_dbfs = level
        self._smoothed_dbfs += _SMOOTHING * (level - self._smoothed_dbfs)
        self._minimum = min(self._minimum, self._smoothed_dbfs)
        self._windows += 1
        if self._windows % _BLOCK_WINDOWS == 0:
            self._block_minima.append(self._minimum)
            self._minimum = math.inf
        above_db = level - self.floor_dbfs - _MARGIN_DB
        return 1.0 / (1.0 + math.exp(-max(min(above_db / _SLOPE_DB, 50.0), -50.0)))

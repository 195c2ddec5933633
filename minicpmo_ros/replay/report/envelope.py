"""The outline of a sound of any length in bounded memory: lowest and highest sample of each bin."""

from __future__ import annotations

import numpy as np

from minicpmo_ros.messages import NS_PER_MS, NS_PER_S
from minicpmo_ros.replay.report.view import Envelope

_INT16 = np.iinfo(np.int16)


class EnvelopeBuilder:
    """Takes stamped pieces of mono sound; when the bins run out, pairs of them become one."""

    def __init__(self, bins: int = 24_000, bin_ns: int = 10 * NS_PER_MS) -> None:
        self._bins = bins + bins % 2
        self._bin_ns = bin_ns
        self._origin_ns: int | None = None
        self._used = 0
        self._low = np.full(self._bins, _INT16.max, np.int16)
        self._high = np.full(self._bins, _INT16.min, np.int16)

    def add(self, stamp_ns: int, samples: np.ndarray, rate_hz: int) -> None:
        """samples: int16 [n]. What lies before the very first sample is left out."""
        if not len(samples):
            return
        if self._origin_ns is None:
            self._origin_ns = stamp_ns
        offset_ns = stamp_ns - self._origin_ns
        while (offset_ns + len(samples) * NS_PER_S // rate_hz) // self._bin_ns >= self._bins:
            self._fold()
        bins = (offset_ns + np.arange(len(samples)) * NS_PER_S // rate_hz) // self._bin_ns
        if bins[0] < 0:
            samples, bins = samples[bins >= 0], bins[bins >= 0]
            if not len(bins):
                return
        starts = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))
        at = bins[starts]
        self._low[at] = np.minimum(self._low[at], np.minimum.reduceat(samples, starts))
        self._high[at] = np.maximum(self._high[at], np.maximum.reduceat(samples, starts))
        self._used = max(self._used, int(at[-1]) + 1)

    def _fold(self) -> None:
        half = self._bins // 2
        self._low[:half] = self._low.reshape(-1, 2).min(axis=1)
        self._high[:half] = self._high.reshape(-1, 2).max(axis=1)
        self._low[half:] = _INT16.max
        self._high[half:] = _INT16.min
        self._bin_ns *= 2
        self._used = (self._used + 1) // 2

    def build(self) -> Envelope | None:
        if self._origin_ns is None:
            return None
        used = slice(0, self._used)
        return Envelope(
            self._origin_ns, self._bin_ns, self._low[used].copy(), self._high[used].copy()
        )

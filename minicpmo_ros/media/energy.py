"""Voice activity without a network: sound that stands out from the noise of the last seconds.

It needs nothing installed. It hears speech in a steady surrounding, and takes any other sound that
begins there, music or a machine, for speech too, until that has lasted for three seconds.
"""

from __future__ import annotations

import math

import numpy as np

# 15 bands of 250 Hz from 250 to 4000 Hz: where speech is, and mains hum and rumble are not.
_FIRST_BIN_HZ = 250
_BANDS = 15
_BAND_HZ = 250
_RATE_HZ = 16_000
# The noise in a band is the least smoothed level of the last 6 blocks of 0.5 s: speech pauses more
# often than that, noise does not (minimum statistics, R. Martin 2001, in its plainest form).
_BLOCKS = 6
_BLOCK_WINDOWS = 16
_SMOOTHING = 0.4
# Levels are dBFS in a band. Less than this is silence; more cannot be an ordinary room's noise,
# so that a stream which begins in the middle of speech is not taken for noise altogether.
_LEAST_NOISE_DB = -85.0
_MOST_FIRST_NOISE_DB = -45.0
# Voiced speech has some strong bands: the strongest few stand out so much on average where speech
# has the probability one half, and the probability rises so steeply around there.
_STRONGEST = 5
_MARGIN_DB = 11.0
_SLOPE_DB = 1.5


class EnergyModel:
    """Follows the noise in each band and compares every window with it."""

    name = "energy"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was heard."""
        self._smoothed = np.full(_BANDS, np.nan)
        self._minima = np.full((_BLOCKS, _BANDS), _MOST_FIRST_NOISE_DB)
        self._minimum = np.full(_BANDS, np.inf)
        self._windows = 0

    def probability(self, window: np.ndarray) -> float:
        """Of speech, 0 to 1, in int16 [512] at 16 kHz."""
        levels = _band_levels(window)
        self._smoothed = np.where(
            np.isnan(self._smoothed),
            levels,
            self._smoothed + _SMOOTHING * (levels - self._smoothed),
        )
        self._minimum = np.minimum(self._minimum, self._smoothed)
        self._windows += 1
        noise = np.maximum(np.minimum(self._minima.min(axis=0), self._minimum), _LEAST_NOISE_DB)
        if self._windows % _BLOCK_WINDOWS == 0:
            self._minima[self._windows // _BLOCK_WINDOWS % _BLOCKS] = self._minimum
            self._minimum = np.full(_BANDS, np.inf)
        above_db = float(np.sort(self._smoothed - noise)[-_STRONGEST:].mean())
        exponent = (_MARGIN_DB - above_db) / _SLOPE_DB
        return 1.0 / (1.0 + math.exp(max(min(exponent, 50.0), -50.0)))


def _band_levels(window: np.ndarray) -> np.ndarray:
    """Level in each band, dBFS, float64 [15]."""
    count = len(window)
    spectrum = np.fft.rfft(window * np.hanning(count) / 32768.0)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    begin = _FIRST_BIN_HZ * count // _RATE_HZ
    width = _BAND_HZ * count // _RATE_HZ
    bands = power[begin : begin + _BANDS * width].reshape(_BANDS, width).sum(axis=1)
    return 10.0 * np.log10(bands / (count * count / 8) + 1e-12)

"""How loud sound is, in dB relative to full scale (dBFS) of int16 samples."""

from __future__ import annotations

import numpy as np

FULL_SCALE = 32768.0
# Digital silence has no level; the quietest 16-bit sound that is none is 0.3 dB above this.
SILENCE_DBFS = -96.0


def rms_dbfs(samples: np.ndarray) -> float:
    """RMS level of int16 samples of any shape; a full-scale sine has -3. Silence: SILENCE_DBFS."""
    if not samples.size:
        return SILENCE_DBFS
    return _dbfs(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))))


def peak_dbfs(samples: np.ndarray) -> float:
    """Level of the largest int16 sample, 0 at full scale. Silence: SILENCE_DBFS."""
    if not samples.size:
        return SILENCE_DBFS
    # In float: the absolute value of -32768 does not fit into int16.
    return _dbfs(float(np.abs(samples.astype(np.float64)).max()))


def _dbfs(amplitude: float) -> float:
    if amplitude <= 0.0:
        return SILENCE_DBFS
    return max(20.0 * float(np.log10(amplitude / FULL_SCALE)), SILENCE_DBFS)

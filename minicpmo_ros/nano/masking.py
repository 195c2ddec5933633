"""Parts of a spectrogram hidden while training, so that no single band or moment decides.

The idea is that of SpecAugment (Park et al., 2019); bands stay the same through an episode, as a
microphone's would, moments are short enough to leave something of every word.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Share of episodes that stay whole.
_WHOLE = 0.4
_BANDS = 2
_BAND_SHARE = 0.15
_MOMENTS = 2
# Frames of 10 ms.
_MOMENT_FRAMES = 9


def masked(mel: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """mel: float32 [seconds, bands, frames]; the same, with parts of it at its mean."""
    if rng.random() < _WHOLE:
        return mel
    mel, mean = mel.copy(), mel.mean()
    seconds, bands, frames = mel.shape
    for _ in range(int(rng.integers(_BANDS + 1))):
        width = int(rng.integers(1, max(int(bands * _BAND_SHARE), 1) + 1))
        first = int(rng.integers(bands - width + 1))
        mel[:, first : first + width] = mean
    for second in range(seconds):
        for _ in range(int(rng.integers(_MOMENTS + 1))):
            long = int(rng.integers(1, _MOMENT_FRAMES + 1))
            first = int(rng.integers(frames - long + 1))
            mel[second, :, first : first + long] = mean
    return mel

"""What the reference was shown and told: sound and pictures that follow from a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000


def wave(seconds: float, seed: int) -> NDArray[np.float32]:
    """Two tones, the lower one swelling 1.3 times a second, and noise: [samples] at 16 kHz."""
    t = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    low = 0.3 * np.sin(2 * np.pi * 220 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 1.3 * t))
    high = 0.1 * np.sin(2 * np.pi * 1730 * t)
    noise = 0.02 * np.random.RandomState(seed).randn(len(t))
    return (low + high + noise).astype(np.float32)


def seconds_of(sound: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The whole seconds in a sound, one after the other."""
    return list(sound[: len(sound) // RATE_HZ * RATE_HZ].reshape(-1, RATE_HZ))


def picture(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Noise: uint8 RGB [height, width, 3]. Its own seed follows from the size, too."""
    random = np.random.RandomState(seed + width * 7 + height)
    return random.randint(0, 256, (height, width, 3), dtype=np.uint8)

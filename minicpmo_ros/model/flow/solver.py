"""The way from noise to sound: Euler's steps along the guided velocity. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float32]
TABLE_STEPS = 10
"""What is computed beforehand for times is there for 1 to so many steps."""


def schedule(steps: int) -> Times:
    """Times of the steps and the end, 1: float32 [steps + 1], 1 - cos(pi i / 2 steps), so that the
    first steps, where the noise decides, are the shortest."""
    part = np.linspace(0.0, 1.0, steps + 1)
    times = (1.0 - np.cos(part * np.pi / 2)).astype(np.float32)
    times[-1] = 1.0
    return times


def table_times() -> Times:
    """Times at which any step of up to TABLE_STEPS begins: float32 [N], rising."""
    return np.unique(np.concatenate([schedule(count + 1)[:-1] for count in range(TABLE_STEPS)]))


def guided(velocities: NDArray[np.float32], guidance: float) -> NDArray[np.float32]:
    """Away from what no condition would give (Ho and Salimans 2022): [2, T, mels], conditioned and
    not -> [T, mels]."""
    conditioned, free = velocities
    return np.float32(1.0 + guidance) * conditioned - np.float32(guidance) * free

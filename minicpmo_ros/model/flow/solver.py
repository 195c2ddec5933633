"""The way from noise to sound: Euler's steps along the guided velocity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Times = NDArray[np.float32]


def schedule(steps: int) -> Times:
    """Times of the steps and the end, 1: float32 [steps + 1], 1 - cos(pi i / 2 steps), so that the
    first steps, where the noise decides, are the shortest."""
    part = np.linspace(0.0, 1.0, steps + 1)
    times = (1.0 - np.cos(part * np.pi / 2)).astype(np.float32)
    times[-1] = 1.0
    return times


def guided(velocities: Tensor, guidance: float) -> Tensor:
    """Away from what no condition would give (Ho and Salimans 2022): [2, T, mels], conditioned and
    not -> float32 [T, mels]."""
    conditioned, free = velocities.float().unbind()
    return (1.0 + guidance) * conditioned - guidance * free

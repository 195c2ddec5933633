"""What noise and other sounds are made of: levels, coloured noise, slow changes, events.

Every finished piece is float32 mono at 16 kHz whose loud parts have an RMS of `PIECE_RMS`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from minicpmo_ros.messages import MIC_RATE_HZ

PIECE_RMS = 0.05
FRAME = MIC_RATE_HZ // 50
# Noise that does not change is made for 8 s and repeated. Out of the inverse transform it comes as
# a loop without a seam.
LOOP = 1 << 17

_STEP = MIC_RATE_HZ // 100


def active_rms(samples: np.ndarray) -> float:
    """RMS of those 20 ms frames of float32 [n] that are within 30 dB of the loudest one."""
    whole = len(samples) // FRAME * FRAME
    if not whole:
        return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0
    frames = samples[:whole].reshape(-1, FRAME)
    power = np.einsum("ij,ij->i", frames, frames) / FRAME
    loudest = float(power.max())
    return float(np.sqrt(power[power >= loudest * 1e-3].mean())) if loudest > 0 else 0.0


def levelled(samples: np.ndarray) -> np.ndarray:
    """float32 [n] with its loud parts at `PIECE_RMS`, cut at full scale; silence stays silent."""
    rms = active_rms(samples)
    if rms <= 0:
        return np.zeros(len(samples), np.float32)
    return np.clip(samples * np.float32(PIECE_RMS / rms), -1.0, 1.0).astype(np.float32, copy=False)


def shaped(
    samples: int, rng: np.random.Generator, shape: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Gaussian noise with an amplitude spectrum. shape: gains of frequencies in Hz, both [n]."""
    size = LOOP
    while size // 2 >= max(samples, FRAME):
        size //= 2
    bins = size // 2 + 1
    spectrum = rng.standard_normal(2 * bins, dtype=np.float32).view(np.complex64)
    loop = np.fft.irfft(spectrum * shape(_frequencies(size)), size)
    return np.resize(loop.astype(np.float32, copy=False), samples)


@lru_cache(maxsize=16)
def _frequencies(size: int) -> np.ndarray:
    return np.fft.rfftfreq(size, 1 / MIC_RATE_HZ).astype(np.float32)


def bands(frequencies: np.ndarray, centres: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The sum of resonances at centres with widths, both in Hz [n]."""
    gains = np.zeros_like(frequencies)
    for centre, width in zip(centres, widths, strict=True):
        gains += 1 / (1 + np.square((frequencies - np.float32(centre)) / np.float32(width)))
    return gains


def slow(samples: int, rng: np.random.Generator, per_s: float, spread_db: float) -> np.ndarray:
    """A gain [samples] that wanders, with so many turns a second, in steps of 10 ms."""
    steps = samples // _STEP + 1
    places = np.arange(steps) * (per_s * _STEP / MIC_RATE_HZ)
    points = rng.normal(0, spread_db, int(places[-1]) + 2)
    wander = 10 ** (np.interp(places, np.arange(len(points)), points) / 20)
    return np.repeat(wander.astype(np.float32), _STEP)[:samples]


def events(
    samples: int,
    rng: np.random.Generator,
    per_s: float,
    make: Callable[[], np.ndarray],
) -> np.ndarray:
    """Short sounds at random times, at least one."""
    sound = np.zeros(samples, np.float32)
    for _ in range(max(1, int(rng.poisson(per_s * samples / MIC_RATE_HZ)))):
        event = make()
        start = int(rng.integers(max(1, samples - len(event) // 2)))
        place = sound[start : start + len(event)]
        place += event[: len(place)]
    return sound

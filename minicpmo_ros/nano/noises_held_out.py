"""Noise of kinds that nano is never trained with: what it does then is measured with them."""

from __future__ import annotations

from functools import partial

import numpy as np

from minicpmo_ros.messages import MIC_RATE_HZ
from minicpmo_ros.nano.pieces import FRAME, LOOP, bands, events, shaped, slow


def rain(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Drops, each a short band of noise, over a hiss that swells."""
    size = min(LOOP, max(samples, FRAME))
    drops = rng.standard_normal(size, dtype=np.float32) ** 3
    drops *= rng.random(size, dtype=np.float32) < 0.02
    centres = rng.uniform(1_500, 6_000, 3)
    shape = bands(np.fft.rfftfreq(size, 1 / MIC_RATE_HZ), centres, centres / 5)
    drops = np.fft.irfft(np.fft.rfft(drops) * shape, size).astype(np.float32)
    hiss = shaped(samples, rng, lambda f: np.minimum(1, f / 2_500))
    hiss *= np.float32(0.5 * drops.std() / max(hiss.std(), 1e-9))
    return (np.resize(drops, samples) + hiss) * slow(samples, rng, 0.5, 3.0)


def engine(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Harmonics, of half the rate too, of an engine whose speed goes up and down."""
    speed = rng.uniform(25, 70) * slow(samples, rng, 0.4, 4.0).astype(np.float64)
    phase = np.cumsum(speed / (2 * MIC_RATE_HZ)) * 4096
    orders = np.arange(1, 61)
    amplitudes = rng.uniform(0.1, 1, 60) / orders ** rng.uniform(0.4, 1.0)
    turns = np.outer(np.arange(4096) / 4096, orders) + rng.random(60)
    cycle = (np.sin(2 * np.pi * turns) @ amplitudes).astype(np.float32)
    rumble = shaped(samples, rng, lambda f: 1 / np.maximum(f, 30))
    rumble *= np.float32(0.4 * cycle.std() / max(rumble.std(), 1e-9))
    return cycle[phase.astype(np.int64) & 4095] + rumble


def crowd(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Bands of noise where speech has its formants, each in the rhythm of syllables."""
    sound = np.zeros(samples, np.float32)
    for centre in (350, 700, 1_400, 2_400):
        middle = np.array([centre * rng.uniform(0.85, 1.15)])
        band = shaped(samples, rng, partial(bands, centres=middle, widths=middle / 4))
        sound += band * slow(samples, rng, rng.uniform(5, 9), 6.0) * np.float32(400 / centre)
    return sound


def birds(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Calls of a few chirps, whistles whose pitch slides."""

    def call() -> np.ndarray:
        length = int(rng.uniform(0.04, 0.2) * MIC_RATE_HZ)
        time = np.linspace(0, 1, length)
        low, slide, wobble = rng.uniform(1_800, 4_500), rng.uniform(-0.4, 0.6), rng.uniform(0, 0.1)
        pitch = low * (1 + slide * time + wobble * np.sin(2 * np.pi * rng.uniform(2, 8) * time))
        chirp = np.sin(2 * np.pi * np.cumsum(pitch) / MIC_RATE_HZ) * np.hanning(length)
        gap = np.zeros(int(rng.uniform(0.02, 0.12) * MIC_RATE_HZ))
        return np.tile(np.concatenate([chirp, gap]), rng.integers(1, 6)).astype(np.float32)

    return events(samples, rng, rng.uniform(0.5, 2), call)

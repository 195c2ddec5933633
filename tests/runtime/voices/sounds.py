"""Sound files with something like speech in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def speech(seconds: float, rate_hz: int = 16_000, seed: int = 0, level: float = 0.2) -> np.ndarray:
    """A swelling tone and noise, float32 [samples]: nowhere silent."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = np.sin(2 * np.pi * 220 * t) * (1 + 0.3 * np.sin(2 * np.pi * 3 * t))
    noise = 0.1 * np.random.default_rng(seed).standard_normal(len(t))
    return (level * (tone + noise)).astype(np.float32)


def written(path: Path, samples: np.ndarray, rate_hz: int = 16_000) -> Path:
    soundfile.write(path, samples, rate_hz, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def spoken(path: Path, seconds: float = 3.0, rate_hz: int = 16_000, seed: int = 0) -> Path:
    return written(path, speech(seconds, rate_hz, seed), rate_hz)

"""Input of which nothing can be known: pictures, sound and a tokenizer. No torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from minicpmo_ros.model import tiny_tokenizer
from minicpmo_ros.model.tokenizer import Tokenizer


def random_tokenizer(vocab: int) -> Tokenizer:
    """A tokenizer with so many tokens."""
    with tempfile.TemporaryDirectory(prefix="minicpmo_bench_") as folder:
        tiny_tokenizer.write(Path(folder), vocab)
        return Tokenizer(folder)


def noise_picture(seed: int) -> np.ndarray:
    """uint8 [480, 640, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def noise_sound(seconds: int) -> np.ndarray:
    """float32 [16000 * seconds]."""
    return (np.random.default_rng(1).standard_normal(16_000 * seconds) * 0.1).astype(np.float32)

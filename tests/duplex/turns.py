"""What the tests of dialogue and chat share: sound, pictures, and how a transcript is spelled."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from minicpmo_ros.duplex.pictures import Shown
from tests.directed_network import spelled

RATE_HZ = 16_000


@cache
def speller(checkpoint: Path) -> Callable[[str], list[Any]]:
    """Transcripts as transformers reads their text, in which control tokens are control."""
    library = AutoTokenizer.from_pretrained(checkpoint)
    return lambda text: spelled(lambda piece: library.encode(piece, add_special_tokens=False), text)


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise, float32 at 16 kHz."""
    noise = np.random.default_rng(seed).normal(0, 0.05, round(seconds * RATE_HZ))
    return noise.astype(np.float32)


def shown(key: int, width: int = 56, height: int = 56, max_slices: int | None = None) -> Shown:
    pixels = np.random.default_rng(key).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Shown(key, pixels, max_slices)

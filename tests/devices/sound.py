"""Sound as tests make it and find it again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from minicpmo_ros.messages import MIC_RATE_HZ, NS_PER_MS, NS_PER_S, AudioChunk


def noise(seconds: float, rate_hz: int = MIC_RATE_HZ, seed: int = 1) -> np.ndarray:
    """White noise, int16, in which no sample is silent."""
    random = np.random.default_rng(seed)
    samples = random.integers(1, 12_000, round(seconds * rate_hz))
    return (samples * random.choice([-1, 1], len(samples))).astype(np.int16)


def place(samples: np.ndarray, within: np.ndarray) -> int:
    """Where a sound is in another, sample by sample; fails where it is not."""
    probe = samples[:64]
    starts = np.flatnonzero(within[: max(0, len(within) - len(samples) + 1)] == probe[0])
    for start in starts:
        if np.array_equal(within[start : start + 64], probe):
            np.testing.assert_array_equal(within[start : start + len(samples)], samples)
            return int(start)
    raise AssertionError(f"the {len(samples)} samples are not among the {len(within)} recorded")


def joined(chunks: Sequence[AudioChunk]) -> np.ndarray:
    """int16 [samples] of all chunks."""
    return np.concatenate([chunk.data for chunk in chunks])


def stamp_of(chunks: Sequence[AudioChunk], sample: int) -> int:
    """Stamp of a sample of `joined(chunks)`, in ns."""
    for chunk in chunks:
        if sample < len(chunk.data):
            return chunk.stamp_ns + sample * NS_PER_S // chunk.sample_rate
        sample -= len(chunk.data)
    raise IndexError(sample)


def gaps(chunks: Sequence[AudioChunk]) -> int:
    """How often a chunk does not begin where the one before it ended.

    Stamps move by 1 ms a chunk of 100 ms while a stream is young; a block that is lost has 20.
    """
    return sum(abs(b.stamp_ns - a.end_ns) > 2 * NS_PER_MS for a, b in pairwise(chunks))

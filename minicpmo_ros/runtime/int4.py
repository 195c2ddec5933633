"""Weights in four bits, or eight: symmetric, a scale for each block of 128 along the inputs.

No torch. Of four bits a block's scale is chosen by trying a few: clipping its largest weight costs
a little there and makes all others finer. What counts is the squared error, weighted by how large
the inputs are that a weight is multiplied with, where one knows that.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import ConfigError

BLOCK = 128
LOWEST, HIGHEST = -8, 7
HIGHEST_OF_EIGHT = 127
# Shares of the largest weight that a scale is tried for.
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
# Weights that are quantised together: temporaries stay in a core's cache.
AT_ONCE = 2**16

Weights = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Int4:
    """A quantised matrix [outputs, inputs].

    codes: int8 [outputs, inputs], -8 to 7, or with eight bits -127 to 127. scales: float32
    [outputs, inputs / BLOCK].
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    bits: int = 4

    @property
    def nbytes(self) -> int:
        """Bytes when packed, with scales of half precision."""
        return self.codes.size * self.bits // 8 + self.scales.size * 2

    def weights(self) -> Weights:
        """What the codes stand for: float32 [outputs, inputs]."""
        blocks = self.codes.reshape(*self.scales.shape, BLOCK).astype(np.float32)
        blocks *= self.scales[..., None]  # in place: a head of 9 B parameters takes 2.5 GB
        return blocks.reshape(self.codes.shape)

    def stored(self) -> NDArray[Any]:
        """The codes of the matrix as [inputs, outputs], as ONNX stores them."""
        return self.packed() if self.bits == 4 else np.ascontiguousarray(self.codes.T)

    def packed(self) -> NDArray[np.uint8]:
        """Two codes a byte, the first in the low bits, of the matrix as [inputs, outputs]: as ONNX
        stores it."""
        flat = np.ascontiguousarray(self.codes.T).reshape(-1)
        return ((flat[0::2] & 0xF) | (flat[1::2] << 4)).astype(np.uint8)


def can_quantise(shape: tuple[int, ...]) -> bool:
    """Whether blocks divide a matrix [outputs, inputs]."""
    return len(shape) == 2 and shape[1] % BLOCK == 0


def quantise(weights: Weights, importance: Weights | None = None, bits: int = 4) -> Int4:
    """Round to nearest; of four bits with the best scale of CLIPS for each block.

    Args:
        weights: [outputs, inputs], inputs a multiple of BLOCK.
        importance: [inputs], mean squares of the inputs; None: all alike.
        bits: 4 or 8.

    Raises:
        ConfigError: blocks do not divide the inputs.
    """
    outputs, inputs = weights.shape
    if not can_quantise(weights.shape):
        raise ConfigError(
            f"a matrix with {inputs} inputs cannot have four bits: blocks of {BLOCK} do not divide"
            " it"
        )
    weighing = np.ones(inputs, np.float32) if importance is None else importance
    weighing = weighing.reshape(1, -1, BLOCK)
    codes = np.empty((outputs, inputs), np.int8)
    scales = np.empty((outputs, inputs // BLOCK), np.float32)
    step = max(AT_ONCE // inputs, 1)

    def some(start: int) -> None:
        rows = slice(start, start + step)
        blocks = weights[rows].astype(np.float32, copy=False).reshape(-1, inputs // BLOCK, BLOCK)
        found, scale = _best(blocks, weighing) if bits == 4 else _rounded(blocks)
        codes[rows] = found.reshape(-1, inputs)
        scales[rows] = scale

    # Numpy lets go of the interpreter while it computes.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(some, range(0, outputs, step)))
    return Int4(codes, scales, bits)


def _rounded(blocks: Weights) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes of eight bits; clipping would gain nothing."""
    scale = (np.abs(blocks).max(axis=2) / HIGHEST_OF_EIGHT).astype(np.float16).astype(np.float32)
    scale[scale == 0] = 1.0
    codes = np.clip(np.rint(blocks / scale[..., None]), -HIGHEST_OF_EIGHT, HIGHEST_OF_EIGHT)
    return codes.astype(np.int8), scale


def _best(blocks: Weights, weighing: Weights) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes and scales with the least error of those tried, block by block."""
    top = np.abs(blocks).max(axis=2)
    least = np.full(top.shape, np.inf, np.float32)
    scales = np.ones(top.shape, np.float32)
    trial, error = np.empty_like(blocks), np.empty_like(blocks)
    for clip in CLIPS:
        # Scales are stored in half precision: round first, then fit the codes to what is stored.
        scale = (top * np.float32(clip / -LOWEST)).astype(np.float16).astype(np.float32)
        scale[scale == 0] = 1.0
        _codes(blocks, scale, trial)
        np.multiply(trial, scale[..., None], out=error)
        np.subtract(error, blocks, out=error)
        np.square(error, out=error)
        np.multiply(error, weighing, out=error)
        found = error.sum(axis=2)
        better = found < least
        least = np.where(better, found, least)
        scales = np.where(better, scale, scales)
    return _codes(blocks, scales, trial).astype(np.int8), scales


def _codes(blocks: Weights, scales: Weights, out: Weights) -> Weights:
    np.multiply(blocks, (1 / scales)[..., None], out=out)
    np.rint(out, out=out)
    return np.clip(out, LOWEST, HIGHEST, out=out)

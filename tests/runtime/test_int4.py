"""Weights in four bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.runtime.int4 import BLOCK, HIGHEST, LOWEST, quantise


def matrix(seed: int, outputs: int = 24, inputs: int = 2 * BLOCK) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((outputs, inputs)).astype(np.float32)


def rounded(weights: np.ndarray) -> np.ndarray:
    """Without a search: the largest weight of each block has the largest code."""
    blocks = weights.reshape(len(weights), -1, BLOCK)
    scale = np.abs(blocks).max(axis=2, keepdims=True) / -LOWEST
    return (np.clip(np.rint(blocks / scale), LOWEST, HIGHEST) * scale).reshape(weights.shape)


def error(found: np.ndarray, weights: np.ndarray, importance: np.ndarray | float = 1.0) -> float:
    return float((np.square(found - weights) * importance).sum())


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(1e-4, 1e3))
def test_the_search_is_better_than_rounding_at_any_scale(seed: int, scale: float) -> None:
    weights = matrix(seed) * np.float32(scale)
    found = quantise(weights)
    assert found.codes.min() >= LOWEST and found.codes.max() <= HIGHEST
    assert (found.scales > 0).all()  # TensorRT takes no others
    assert np.array_equal(found.scales.astype(np.float16).astype(np.float32), found.scales)
    assert error(found.weights(), weights) < 0.97 * error(rounded(weights), weights)
    relative = np.sqrt(error(found.weights(), weights) / np.square(weights).sum())
    assert relative < 0.11


def test_what_is_multiplied_by_much_is_kept_best() -> None:
    weights = matrix(1)
    importance = np.full(weights.shape[1], 0.01, np.float32)
    importance[::16] = 10.0
    plain, weighed = quantise(weights), quantise(weights, importance)
    assert error(weighed.weights(), weights, importance) < 0.98 * error(
        plain.weights(), weights, importance
    )


def test_a_block_of_zeros_stays_zero() -> None:
    weights = matrix(2)
    weights[3, BLOCK:] = 0
    assert not quantise(weights).weights()[3, BLOCK:].any()


def test_two_codes_lie_in_a_byte_inputs_first() -> None:
    found = quantise(matrix(3))
    packed = found.packed()
    assert packed.nbytes == found.codes.size // 2
    low, high = packed & 0xF, packed >> 4
    flat = np.stack([low, high], axis=1).reshape(-1).astype(np.int8)
    flat[flat > HIGHEST] -= 16
    assert np.array_equal(flat.reshape(found.codes.T.shape), found.codes.T)


def test_inputs_that_blocks_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="4304 inputs"):
        quantise(np.zeros((2, 4304), np.float32))

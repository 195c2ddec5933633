"""Keys and values in numpy do what those in torch do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import KvFullError
from minicpmo_ros.model.kv import KvCache
from minicpmo_ros.runtime.kv import SMALLEST, STEP, KvRows

LAYERS, HEADS, DIM, THETA = 2, 3, 16, 1e6
CAPACITY = 4 * SMALLEST


def both() -> tuple[KvRows, KvCache]:
    return (
        KvRows(LAYERS, HEADS, CAPACITY, DIM, THETA),
        KvCache(LAYERS, HEADS, CAPACITY, DIM, THETA),
    )


def write(ours: KvRows, theirs: KvCache, count: int, seed: int) -> None:
    shape = (HEADS, count, DIM)
    random = np.random.default_rng(seed)
    rows = [random.standard_normal(shape).astype(np.float32) for _ in range(2 * LAYERS)]
    at = ours.length
    ours.write(rows, at)
    for layer in range(LAYERS):
        theirs.k[layer, :, at : at + count] = torch.from_numpy(rows[2 * layer])
        theirs.v[layer, :, at : at + count] = torch.from_numpy(rows[2 * layer + 1])
    theirs.length = at + count


def assert_equal(ours: KvRows, theirs: KvCache) -> None:
    assert ours.length == theirs.length
    for layer in range(LAYERS):
        k, v = (buffer[:, : ours.length] for buffer in ours.buffers[2 * layer : 2 * layer + 2])
        assert np.allclose(k, theirs.k[layer, :, : ours.length].numpy(), atol=5e-6)
        assert np.array_equal(v, theirs.v[layer, :, : ours.length].numpy())


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "remove", "shift", "truncate"]), st.integers(0, 10**6)),
    max_size=8,
)


@settings(max_examples=40)
@given(STEPS)
def test_any_sequence_of_changes_leaves_the_same_rows(steps: list[tuple[str, int]]) -> None:
    ours, theirs = both()
    write(ours, theirs, 300, 0)
    for step, number in steps:
        length = ours.length
        if step == "write":
            count = number % 200 + 1
            if length + count <= CAPACITY:
                write(ours, theirs, count, number)
        elif step == "remove":
            start = number % (length + 1)
            stop = min(start + number % 97, length)
            spans = [(start, stop), (0, min(number % 5, start))]
            ours.remove(spans)
            theirs.remove(spans)
        elif step == "shift":
            start = number % (length + 1)
            to = min(max(start + number % 61 - 30, 0), CAPACITY - (length - start))
            ours.shift(start, to)
            theirs.shift(start, to)
            # A gap that a shift leaves is written over before it is read.
            for buffer in (*ours.buffers, *theirs.k, *theirs.v):
                buffer[:, start:to] = 0
        else:
            keep = number % (length + 1)
            ours.truncate(keep)
            theirs.truncate(keep)
        assert_equal(ours, theirs)


def test_buffers_grow_with_what_is_in_them() -> None:
    ours, theirs = both()
    write(ours, theirs, 10, 0)
    assert ours.buffers[0].shape[1] == SMALLEST
    write(ours, theirs, SMALLEST, 1)
    assert ours.buffers[0].shape[1] == SMALLEST + STEP
    write(ours, theirs, 2 * SMALLEST - 10, 2)
    assert ours.buffers[0].shape[1] == 3 * SMALLEST
    write(ours, theirs, 1, 3)
    assert ours.buffers[0].shape[1] == 3 * SMALLEST + STEP  # by an eighth, at least
    assert_equal(ours, theirs)
    assert ours.nbytes == theirs.nbytes


def test_what_does_not_fit_or_is_not_there_is_refused() -> None:
    ours, theirs = both()
    write(ours, theirs, 100, 0)
    with pytest.raises(KvFullError, match="100 in use"):
        ours.check_room(CAPACITY)
    with pytest.raises(ValueError, match="overlaps"):
        ours.remove([(0, 10), (5, 15)])
    with pytest.raises(ValueError, match="not within 100"):
        ours.remove([(90, 110)])
    with pytest.raises(ValueError, match="cannot cut"):
        ours.truncate(101)
    assert_equal(ours, theirs)


def test_nothing_is_left_of_what_is_cut_off() -> None:
    """Whoever looks at all rows multiplies these with nothing, which of NaN would be NaN."""
    ours, theirs = both()
    write(ours, theirs, 100, 0)
    nan = np.full((HEADS, 20, DIM), np.nan, np.float32)
    ours.write([nan] * (2 * LAYERS), 90)
    ours.truncate(90)
    theirs.truncate(90)
    assert_equal(ours, theirs)
    assert not any(buffer[:, 90:].any() for buffer in ours.buffers)

"""Keys and values on a card do what those in main memory do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import KvFullError
from minicpmo_ros.runtime.kv import SMALLEST, KvRows
from minicpmo_ros.runtime.trt.cache import PIECE, DeviceCache
from minicpmo_ros.runtime.trt.card import ALIGNMENT, Card
from minicpmo_ros.runtime.trt.rows import Rows, copy_rows
from tests.runtime.trt.fake_cuda import FakeCuda

LAYERS, THETA = 2, 1e4
CAPACITY = 4 * SMALLEST - 40


class Both:
    """A cache on a card and one in main memory, with the same rows.

    heads, dim: with odd ones tensors do not end where the next may begin.
    """

    def __init__(self, heads: int, dim: int) -> None:
        self.cuda = FakeCuda()
        self.card = Card(cuda=self.cuda)
        kind = np.dtype(np.float32)
        self.ours = DeviceCache(self.card, LAYERS, heads, dim, kind, CAPACITY, THETA)
        self.theirs = KvRows(LAYERS, heads, CAPACITY, dim, THETA)
        self.shape = heads, dim

    def write(self, count: int, seed: int, at: int | None = None, *, nan: bool = False) -> None:
        heads, dim = self.shape
        at = self.ours.length if at is None else at
        random = np.random.default_rng(seed)
        new = random.standard_normal((2 * LAYERS, heads, count, dim)).astype(np.float32)
        if nan:
            new[:] = np.nan
        self.theirs.write(list(new), at)
        # As an engine leaves them, with a row more than there is to be copied.
        sizes = 2 * LAYERS, heads, count + 1, 4 * dim
        memory = self.card.memory(Rows(0, *sizes).nbytes)
        left = Rows(memory.address, *sizes)
        self.card.synchronize()  # zeros would come behind what is written here
        for tensor in range(2 * LAYERS):
            place = self.cuda.view(left.of(self.ours.index(tensor)), heads * (count + 1) * 4 * dim)
            place.view(np.float32).reshape(heads, count + 1, dim)[:, :count] = new[tensor]
        self.ours.reserve(at + count)
        self.ours.put(left, at, count)
        self.card.synchronize()
        self.ours.length = max(self.ours.length, at + count)

    def assert_equal(self) -> None:
        ours, theirs = self.ours, self.theirs
        length = ours.length
        assert length == theirs.length
        if length:
            assert np.allclose(ours.keys(length), theirs.keys(length), atol=5e-6)
        heads, dim = self.shape
        for layer in range(LAYERS):
            nbytes = heads * ours.rows.rows * dim * 4
            place = self.cuda.view(ours.rows.of(ours.index(2 * layer + 1)), nbytes)
            values = place.view(np.float32).reshape(heads, ours.rows.rows, dim)
            assert np.array_equal(values[:, :length], theirs.buffers[2 * layer + 1][:, :length])
            # All rows are looked at by a graph, used or not.
            assert np.isfinite(values).all()
            assert ours.rows.of(ours.index(2 * layer + 1)) % ALIGNMENT == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "over", "remove", "shift", "truncate"]), st.integers(0, 10**6)
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(STEPS, st.sampled_from([(4, 32), (3, 10)]))
def test_any_sequence_of_changes_leaves_the_same_rows(
    steps: list[tuple[str, int]], shape: tuple[int, int]
) -> None:
    both = Both(*shape)
    both.write(SMALLEST + PIECE + 20, 0)
    for step, number in steps:
        length = both.ours.length
        if step == "write":
            count = number % 200 + 1
            if length + count <= CAPACITY:
                both.write(count, number)
        elif step == "over":
            at = number % (length + 1)
            both.write(min(number % 50 + 1, CAPACITY - at), number, at)
        elif step == "remove":
            start = number % (length + 1)
            stop = min(start + number % 97, length)
            spans = [(start, stop), (0, min(number % 5, start))]
            both.ours.remove(spans)
            both.theirs.remove(spans)
        elif step == "shift":
            start = number % (length + 1)
            to = min(max(start + number % 601 - 300, 0), CAPACITY - (length - start))
            both.ours.shift(start, to)
            both.theirs.shift(start, to)
            if to > start:  # what is left in a gap is written over before it is read
                both.write(to - start, number, start)
        else:
            keep = number % (length + 1)
            both.ours.truncate(keep)
            both.theirs.truncate(keep)
        both.assert_equal()


@pytest.mark.parametrize("shape", [(4, 32), (3, 10)])
def test_nothing_is_left_of_what_is_cut_off(shape: tuple[int, int]) -> None:
    both = Both(*shape)
    both.write(100, 0)
    both.write(PIECE + 50, 1, 90, nan=True)
    for cache in (both.ours, both.theirs):
        cache.truncate(90)
    both.assert_equal()


def test_the_rows_of_all_layers_are_one_copy() -> None:
    both = Both(4, 32)
    both.write(10, 0)
    before = both.cuda.copies
    both.ours.put(both.ours.rows.part(0, 2 * LAYERS), 100, 1)
    both.card.synchronize()
    assert both.cuda.copies == before + 1


def test_a_cache_takes_the_memory_of_what_is_in_it() -> None:
    both = Both(4, 32)
    both.write(10, 0)
    assert both.ours.rows.rows == SMALLEST
    both.ours.programs["of the old memory"] = None  # type: ignore[assignment]
    both.write(SMALLEST, 1)
    assert both.ours.rows.rows == 2 * SMALLEST
    assert not both.ours.programs
    both.write(CAPACITY - both.ours.length, 2)
    assert both.ours.rows.rows == CAPACITY
    assert both.ours.nbytes == both.ours.rows.nbytes == both.theirs.nbytes
    with pytest.raises(KvFullError):
        both.ours.check_room(1)


def test_copies_stay_within_their_memory() -> None:
    """So would the fake card tell, if they did not."""
    both = Both(4, 32)
    rows = both.ours.rows
    copy_rows(both.card, rows, SMALLEST - 5, rows, 0, 6)
    with pytest.raises(AssertionError, match="not within any memory"):
        both.card.synchronize()

"""The ring between a callback and its reader."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.media.ring import RingBuffer


@given(
    capacity=st.integers(1, 40),
    channels=st.integers(1, 3),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=60),
)
def test_what_was_accepted_comes_out_in_order_and_the_rest_is_counted(
    capacity: int, channels: int, steps: list[tuple[bool, int]]
) -> None:
    ring = RingBuffer(capacity, channels)
    accepted: list[np.ndarray] = []
    taken: list[np.ndarray] = []
    offered = refused = 0
    for writes, frames in steps:
        if writes:
            block = np.arange(offered, offered + frames, dtype=np.int16)[:, None]
            block = np.repeat(block, channels, axis=1)
            offered += frames
            if ring.write(block):
                accepted.append(block)
            else:
                refused += frames
        else:
            taken.append(ring.read(frames))
    taken.append(ring.read(capacity))
    empty = np.zeros((0, channels), np.int16)
    np.testing.assert_array_equal(
        np.concatenate([empty, *taken]), np.concatenate([empty, *accepted])
    )
    assert ring.overflow == refused
    assert ring.available == 0


def test_a_block_that_does_not_fit_is_refused_whole() -> None:
    ring = RingBuffer(10)
    assert ring.write(np.ones((7, 1), np.int16))
    assert not ring.write(np.ones((4, 1), np.int16))
    assert (ring.available, ring.overflow) == (7, 4)


def test_fill_leaves_silence_where_frames_are_missing() -> None:
    ring = RingBuffer(8)
    ring.write(np.full((3, 1), 5, np.int16))
    block = np.full((5, 1), 9, np.int16)
    assert ring.fill(block) == 3
    assert block[:, 0].tolist() == [5, 5, 5, 0, 0]
    assert ring.underflow == 2


def test_a_writer_and_a_reader_in_two_threads_lose_nothing() -> None:
    ring = RingBuffer(257)
    total = 20_000
    numbers = np.arange(total, dtype=np.int16)[:, None]

    def write() -> None:
        sent = 0
        while sent < total:
            if ring.write(numbers[sent : sent + 31]):
                sent += 31

    writer = threading.Thread(target=write)
    writer.start()
    pieces, count = [], 0
    while count < total:
        pieces.append(ring.read(50))
        count += len(pieces[-1])
    writer.join()
    np.testing.assert_array_equal(np.concatenate(pieces), numbers)


def test_a_ring_of_no_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 frames"):
        RingBuffer(0)

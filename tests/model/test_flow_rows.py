"""Which rows of the past are kept, and where they lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.model.flow.relative import shifted, sinusoids, window
from minicpmo_ros.model.flow.rows import FrameSlots, kept_frames, kept_tokens

CHUNKS = st.lists(st.integers(1, 180), min_size=1, max_size=12)


def in_front(prompt: int, chunks: list[int]) -> set[tuple[int, int]]:
    """(chunk, frame) of the rows that the reference's estimator keeps, chunk -1 being the prompt:
    new rows in front of the old, and then cut, as its published code has it."""
    rows = [(-1, frame) for frame in range(prompt)]
    for chunk, count in enumerate(chunks):
        rows = [(chunk, frame) for frame in range(count)] + rows
        if len(rows) > prompt + 100:
            rows = rows[:prompt] + rows[-100:]
    return set(rows)


def oldest_gone(prompt: int, chunks: list[int]) -> set[tuple[int, int]]:
    said = [(chunk, frame) for chunk, count in enumerate(chunks) for frame in range(count)]
    return {(-1, frame) for frame in range(prompt)} | set(said[-100:])


@pytest.mark.parametrize(("forget", "expected"), [("reference", in_front), ("oldest", oldest_gone)])
@given(prompt=st.integers(1, 300), chunks=CHUNKS)
def test_slots_hold_the_rows_that_are_kept(forget, expected, prompt, chunks) -> None:
    slots = FrameSlots(prompt, forget)
    buffer: dict[int, tuple[int, int]] = {
        slots.room + slot: (-1, frame) for slot, frame in enumerate(slots.prompt_order())
    }
    at_first = dict(buffer)
    for chunk, count in enumerate(chunks):
        kept, places = slots.push(count)
        assert len(set(places)) == len(kept) == len(places)
        buffer |= {place: (chunk, frame) for place, frame in zip(places, kept, strict=True)}
        in_use = [buffer[slot] for slot in range(slots.start, slots.stop)]
        assert len(set(in_use)) == len(in_use)
        assert set(in_use) == expected(prompt, chunks[: chunk + 1])
    assert set(buffer) <= set(range(slots.capacity))
    slots.reset()
    assert {slot: buffer[slot] for slot in range(slots.start, slots.stop)} == at_first


def test_tokens_that_the_reference_keeps_are_the_first_of_the_turn() -> None:
    assert kept_tokens(110, 60, 2, "reference") == list(range(110))
    assert kept_tokens(135, 60, 2, "reference") == list(range(110))
    assert kept_tokens(135, 60, 2, "oldest") == [*range(60), *range(85, 135)]


@given(st.integers(1, 200), st.integers(1, 400))
def test_rows_of_tokens_are_half_of_those_of_frames(prompt: int, tokens: int) -> None:
    tokens += prompt
    frames = len(kept_frames(2 * tokens, 2 * prompt))
    assert len(kept_tokens(tokens, prompt, 2, "reference")) == frames // 2
    assert len(kept_tokens(tokens, prompt, 2, "oldest")) == frames // 2


@given(st.integers(0, 40), st.integers(1, 30))
def test_scores_by_distance_are_shifted_to_their_keys(past: int, new: int) -> None:
    keys, radius = past + new, past + new + 5
    distances = torch.arange(radius - 1, -radius, -1.0)[:, None]
    near = window(distances, past, new)[:, 0]
    assert near[0] == keys - 1 and near[-1] == 1 - new
    found = shifted(near.expand(2, new, len(near)), keys)
    expected = torch.arange(past, keys)[:, None] - torch.arange(keys)
    assert torch.equal(found, expected.float().expand(2, new, keys))


def test_sinusoids_of_distances() -> None:
    table, w = sinusoids(4, 6), 10000 ** (-4 / 6)
    assert table.shape == (7, 6)
    assert torch.equal(table[3], torch.tensor([0.0, 1.0] * 3))  # no distance
    assert torch.allclose(table[0, :2], torch.tensor([np.sin(3.0), np.cos(3.0)]).float())
    assert torch.allclose(table[2, 4:], torch.tensor([np.sin(w), np.cos(w)]).float())
    assert torch.allclose(table[:, 0::2], -table.flip(0)[:, 0::2])
    assert torch.allclose(table[:, 1::2], table.flip(0)[:, 1::2])

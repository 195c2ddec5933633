"""Codes on their way to a vocoder: each is turned into sound once, seen with those behind it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.duplex.vocoding import CODES_PER_SECOND, RATE_HZ, SILENCE, CodeStream

SAMPLES_PER_CODE = RATE_HZ // CODES_PER_SECOND


class Echo:
    """A vocoder whose sound is its codes. turns: what it was given in each turn."""

    def __init__(self) -> None:
        self.turns: list[list[tuple[list[int], bool]]] = []

    def stream(self, codes: Sequence[int], last: bool) -> np.ndarray:
        self.turns[-1].append((list(codes), last))
        return np.repeat(np.float32(codes if last else codes[:-3]), SAMPLES_PER_CODE)

    def reset(self) -> None:
        self.turns.append([])


def codes_in(sound: np.ndarray) -> list[int]:
    return sound[::SAMPLES_PER_CODE].astype(int).tolist()


pushes = st.lists(
    st.tuples(st.integers(0, 26) | st.integers(0, 90), st.booleans()), min_size=1, max_size=12
)


@given(pushes)
def test_every_code_sounds_once_and_in_order(lengths):
    vocoder = Echo()
    stream = CodeStream(vocoder)
    code = 10_000
    turn, sounded = [SILENCE] * 3, []
    for length, last in lengths:
        codes = list(range(code, code + length))
        code, turn = code + length, turn + codes
        turns = len(vocoder.turns)
        sound = stream.push(codes, last=last)
        sounded += [found for found in codes_in(sound) if found]
        assert len(vocoder.turns) == turns + last
        if last:
            assert sounded == turn
            turn, sounded = [SILENCE] * 3, []
        else:
            # What cannot be seen with three behind it waits, and with it what is not worth a call.
            assert sounded == turn[: len(sounded)]
            assert 3 <= len(turn) - len(sounded) <= 7
            assert len(sound) == 0 or len(sound) >= RATE_HZ


@given(pushes)
def test_the_vocoder_sees_three_codes_ahead_and_at_most_a_second(lengths):
    vocoder = Echo()
    stream = CodeStream(vocoder)
    for length, last in lengths:
        stream.push(range(length), last=last)
    for calls in vocoder.turns:
        for (codes, last), (following, _) in pairwise(calls):
            assert not last
            assert 8 <= len(codes) <= 28
            assert following[:3] == codes[-3:]


def test_from_the_first_a_chunk_is_a_second():
    vocoder = Echo()
    stream = CodeStream(vocoder)
    for start in (0, 25, 50):
        chunk = list(range(100 + start, 125 + start))
        sound = stream.push(chunk, last=False)
        assert len(sound) == RATE_HZ
        assert len(vocoder.turns[-1][-1][0]) == 28
        assert codes_in(sound)[3:] == chunk[:-3]
    assert len(vocoder.turns[-1]) == 3


def test_a_short_second_has_silence_before_it_but_not_at_the_end():
    stream = CodeStream(Echo())
    sound = stream.push([7] * 10, last=False)
    assert codes_in(sound) == [0] * 15 + [SILENCE] * 3 + [7] * 7
    assert codes_in(stream.push([8] * 10, last=True)) == [7] * 3 + [8] * 10


def test_a_turn_without_codes_ends_with_the_silence_it_began_with():
    vocoder = Echo()
    stream = CodeStream(vocoder)
    assert len(stream.push([], last=False)) == 0
    assert codes_in(stream.push([], last=True)) == [SILENCE] * 3
    assert vocoder.turns == [[([SILENCE] * 3, True)], []]


def test_a_restart_drops_what_waits():
    vocoder = Echo()
    stream = CodeStream(vocoder)
    stream.push([9] * 25, last=False)
    stream.restart()
    assert codes_in(stream.push([7] * 25, last=True)) == [SILENCE] * 3 + [7] * 25
    assert len(vocoder.turns) == 3

"""Codes on their way to a vocoder: each is turned into sound once, seen with those behind it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.duplex.vocoding import CODES_PER_SECOND, RATE_HZ, SILENCE, CodeStream
from minicpmo_ros.errors import ConfigError

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


@given(pushes, st.lists(st.integers(5, 30), min_size=1, max_size=4))
def test_every_code_sounds_once_and_in_order(lengths, chunks):
    vocoder = Echo()
    stream = CodeStream(vocoder, chunks)
    code = 10_000
    turn, sounded = [], []
    for length, last in lengths:
        codes = list(range(code, code + length))
        code, turn = code + length, turn + codes
        turns = len(vocoder.turns)
        for one in codes:
            sounded += codes_in(stream.feed([one]))
        sounded += codes_in(stream.flush(last=last))
        assert len(vocoder.turns) == turns + last
        if last:
            assert sounded == turn
            turn, sounded = [], []
        else:
            # What cannot be seen with three behind it waits, and with it what is not worth a call.
            assert sounded == turn[: len(sounded)]
            assert len(turn) - len(sounded) <= 7


@given(pushes, st.lists(st.integers(5, 30), min_size=1, max_size=4))
def test_codes_fed_one_by_one_are_given_as_those_of_a_unit_at_once(lengths, chunks):
    calls = []
    for at_once in (True, False):
        vocoder = Echo()
        stream = CodeStream(vocoder, chunks)
        for length, last in lengths:
            if at_once:
                stream.push(range(length), last=last)
                continue
            for code in range(length):
                stream.feed([code])
            stream.flush(last=last)
        calls.append(vocoder.turns)
    assert calls[0] == calls[1]


def test_a_turn_begins_with_small_chunks_and_sounds_as_soon_as_they_are_seen():
    vocoder = Echo()
    stream = CodeStream(vocoder)
    ready = [len(codes_in(stream.feed([code]))) for code in range(60)]
    assert {place + 1: codes for place, codes in enumerate(ready) if codes} == {
        11: 8,
        28: 17,
        53: 25,
    }
    assert [(len(codes), last) for codes, last in vocoder.turns[-1]] == [
        (8 + 3, False),
        (17 + 3, False),
        (25 + 3, False),
    ]
    stream.restart()
    assert len(codes_in(stream.feed(range(11)))) == 8


def test_a_unit_ends_with_what_it_has():
    stream = CodeStream(Echo())
    assert codes_in(stream.push(range(25), last=False)) == list(range(22))
    assert codes_in(stream.push(range(25, 50), last=False)) == list(range(22, 47))
    assert codes_in(stream.push([50, 51], last=True)) == list(range(47, 52))


def test_a_turn_without_codes_has_no_sound():
    vocoder = Echo()
    stream = CodeStream(vocoder)
    assert len(stream.push([], last=False)) == 0
    assert len(stream.push([], last=True)) == 0
    assert vocoder.turns == [[], []]


@pytest.mark.parametrize("chunks", [(), (8, 4), (8, 51), (0,)])
def test_chunks_of_no_use_are_named(chunks):
    with pytest.raises(ConfigError, match=r"speech_chunks: .*5 to 50, such as 8 17 25"):
        CodeStream(Echo(), chunks)


# -- as the published code does -----------------------------------------------------------------


def published(vocoder: Echo) -> CodeStream:
    return CodeStream(vocoder, reference_compat=True)


@given(pushes)
def test_the_published_turn_has_silence_in_front_and_every_code_once(lengths):
    vocoder = Echo()
    stream = published(vocoder)
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
    stream = published(vocoder)
    for length, last in lengths:
        stream.push(range(length), last=last)
    for calls in vocoder.turns:
        for (codes, last), (following, _) in pairwise(calls):
            assert not last
            assert 8 <= len(codes) <= 28
            assert following[:3] == codes[-3:]


def test_from_the_first_a_chunk_is_a_second():
    vocoder = Echo()
    stream = published(vocoder)
    for start in (0, 25, 50):
        chunk = list(range(100 + start, 125 + start))
        sound = stream.push(chunk, last=False)
        assert len(sound) == RATE_HZ
        assert len(vocoder.turns[-1][-1][0]) == 28
        assert codes_in(sound)[3:] == chunk[:-3]
    assert len(vocoder.turns[-1]) == 3


def test_a_short_second_has_silence_before_it_but_not_at_the_end():
    stream = published(Echo())
    sound = stream.push([7] * 10, last=False)
    assert codes_in(sound) == [0] * 15 + [SILENCE] * 3 + [7] * 7
    assert codes_in(stream.push([8] * 10, last=True)) == [7] * 3 + [8] * 10


def test_a_turn_without_codes_ends_with_the_silence_it_began_with():
    vocoder = Echo()
    stream = published(vocoder)
    assert len(stream.push([], last=False)) == 0
    assert codes_in(stream.push([], last=True)) == [SILENCE] * 3
    assert vocoder.turns == [[([SILENCE] * 3, True)], []]


def test_a_restart_drops_what_waits():
    vocoder = Echo()
    stream = published(vocoder)
    stream.push([9] * 25, last=False)
    stream.restart()
    assert codes_in(stream.push([7] * 25, last=True)) == [SILENCE] * 3 + [7] * 25
    assert len(vocoder.turns) == 3


def test_later_units_can_be_two_chunks_each():
    vocoder = Echo()
    stream = CodeStream(vocoder, (8, 14, 13))
    for _ in range(3):
        stream.push(range(25), last=False)
    assert [len(codes) - 3 for codes, _ in vocoder.turns[-1]] == [8, 14, 13, 12, 13, 12]

"""What has been heard of a turn whose speech came too late."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.brains.api import Speech
from minicpmo_ros.brains.turns import Turn
from minicpmo_ros.media.playback import PlayQueue
from minicpmo_ros.messages import NS_PER_S, Playback, PlaybackEvent, SpeechChunk, WordMark
from tests.brains.test_session import Stage, at, talk

RATE_HZ = 24_000
STARTED, PLAYING, FINISHED, _ = PlaybackEvent
WORDS = ("one", "two", "three", "four")


def piece(*words: str, pause: int = 0) -> Speech:
    """Half a second a word, of which each is over a little before, with a pause behind them."""
    step = RATE_HZ // 2
    marks = tuple(WordMark(w, k * step, (k + 1) * step - 100) for k, w in enumerate(words))
    data = np.full(len(words) * step + pause, 1000, np.int16)
    data[len(words) * step :] = 0
    return Speech(data, " ".join(words), marks)


def planned(*words: str) -> Turn:
    """A turn of these words that was planned for the second 0."""
    turn = Turn(number=1, epoch=0, start_ns=at(0), rate_hz=RATE_HZ)
    turn.chunk(piece(*words), unit=0, last=True)
    return turn


def report(event: PlaybackEvent, at_s: float, sounded_s: float, concealed_s: float) -> Playback:
    return Playback(
        at(at_s),
        0,
        1,
        event,
        round(sounded_s * RATE_HZ),
        concealed_samples=round(concealed_s * RATE_HZ),
    )


def test_words_behind_a_gap_are_heard_as_much_later() -> None:
    turn = planned(*WORDS)
    turn.report(report(STARTED, 0.0, 0.0, 0.0))
    assert turn.heard_at(at(1.7)) == "one two three"
    turn.report(report(PLAYING, 1.4, 1.0, 0.4))
    assert turn.heard_at(at(1.4)) == "one two"
    assert turn.heard_at(at(1.7)) == "one two"
    assert turn.heard_at(at(1.9)) == "one two three"
    assert turn.end_ns == at(2.4)
    assert turn.sounds_at(at(2.3))


def test_what_is_caught_up_in_a_pause_is_heard_as_planned_again() -> None:
    turn = planned(*WORDS)
    turn.report(report(PLAYING, 1.4, 1.0, 0.4))
    turn.report(report(PLAYING, 1.7, 1.7, 0.0))
    assert turn.heard_at(at(1.7)) == "one two three"
    assert turn.end_ns == at(2.0)


def test_a_turn_that_finished_late_was_heard_to_its_end_and_no_sooner() -> None:
    turn = planned(*WORDS)
    turn.report(report(PLAYING, 1.4, 1.0, 0.4))
    turn.report(report(FINISHED, 2.4, 2.0, 0.4))
    assert turn.heard_at(at(2.2)) == "one two three"
    assert turn.heard_at(at(2.4)) == "one two three four"


@pytest.mark.parametrize(("concealed_s", "heard"), [(0.0, "one two"), (0.6, "one")])
def test_of_a_turn_with_a_gap_that_is_cut_off_the_brain_is_told_fewer_words(
    concealed_s: float, heard: str
) -> None:
    stage = Stage(talk(3.0))
    stage.hear(1.0)
    begins_ns = stage.session.turn(stage.of(SpeechChunk)[0].turn).start_ns
    stage.hear(1.8)
    since_s = (stage.now - begins_ns) / NS_PER_S
    stage.session.playback(
        report(PLAYING, (stage.now - at(0)) / NS_PER_S, since_s - concealed_s, concealed_s)
    )
    stage.session.interrupt("enough", stage.now)
    assert stage.brain.interrupted == [heard]


def reports_of(late_steps: Sequence[int], pause: int) -> tuple[Turn, list[Playback]]:
    """A turn of two words a piece, each so many tenths of a second later than it is needed, and
    what the speaker says of it."""
    turn = Turn(number=1, epoch=0, start_ns=at(0), rate_hz=RATE_HZ)
    queue, frame, block = PlayQueue(), 0, RATE_HZ // 10
    out: list[Playback] = []

    def play(until: int) -> None:
        nonlocal frame
        while frame < until:
            queue.take(block, at(0) + round(frame * NS_PER_S / RATE_HZ))
            frame += block
            out.extend(queue.reports())

    length = RATE_HZ + pause
    for number, late in enumerate([0, *late_steps]):
        play(number * length + late * block)
        speech = piece(f"word{2 * number}", f"word{2 * number + 1}", pause=pause)
        queue.push(turn.chunk(speech, number, last=number == len(late_steps)))
    play(frame + (len(late_steps) + 2) * length)
    return turn, out


@settings(max_examples=60, deadline=None)
@given(
    late_steps=st.lists(st.integers(-3, 5), min_size=1, max_size=8),
    pause=st.sampled_from([0, 7_200]),
)
def test_session_and_speaker_agree_on_the_words_heard_however_late_speech_comes(
    late_steps: list[int], pause: int
) -> None:
    turn, reports = reports_of(late_steps, pause)
    for one in reports:
        turn.report(one)
        assert turn.heard_at(one.stamp_ns) == one.heard
    assert reports[-1].event is FINISHED
    assert reports[-1].heard.split() == [f"word{k}" for k in range(2 * len(late_steps) + 2)]

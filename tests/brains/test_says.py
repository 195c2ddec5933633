"""Texts to say: when they are spoken, taken back and cut off, and what is told of them."""

from __future__ import annotations

import pytest

from minicpmo_ros.brains.says import Spoken
from minicpmo_ros.errors import BrainError
from minicpmo_ros.messages import NS_PER_MS, Playback, PlaybackEvent, SpeechChunk
from tests.brains.staged import T0, Parrot, Stage, at, talk


def turns(stage: Stage) -> list[tuple[int, str]]:
    return [(chunk.turn, chunk.text) for chunk in stage.of(SpeechChunk)]


def test_say_is_spoken_after_the_robots_turn_and_reported_when_heard():
    stage = Stage(talk(1.5), synthesiser=Parrot())
    stage.hear(1.0)
    turn = stage.session.say("hello there", stage.now)
    stage.hear(0.6)
    said = [c for c in stage.of(SpeechChunk) if c.turn == turn]
    assert said[0].stamp_ns == at(2.5)
    assert stage.session.spoken(turn) == Spoken(False, False, "")
    stage.session.playback(
        Playback(at(3.5), 0, turn, PlaybackEvent.FINISHED, 24_000, "hello there")
    )
    assert stage.session.spoken(turn) == Spoken(True, True, "hello there")


def test_say_that_is_interrupted_says_so():
    stage = Stage(synthesiser=Parrot())
    stage.hear(1.0)
    turn = stage.session.say("hello there", stage.now)
    stage.session.interrupt("test", stage.now + 100 * NS_PER_MS)
    assert stage.session.spoken(turn) == Spoken(True, False, "")


def test_say_waits_for_a_turn_that_is_not_finished():
    stage = Stage(talk(1.0, "a b", end=False), talk(1.0, "c d", end=True), synthesiser=Parrot())
    stage.hear(1.0)
    turn = stage.session.say("later", stage.now)
    assert not [c for c in stage.of(SpeechChunk) if c.turn == turn]
    stage.hear(1.0)
    assert [c.stamp_ns for c in stage.of(SpeechChunk) if c.turn == turn] == [at(3)]


def test_say_without_a_synthesiser_is_refused():
    with pytest.raises(BrainError, match="espeak-ng"):
        Stage().session.say("hello", T0)


def test_texts_are_said_in_their_order_and_the_next_goes_out_when_little_is_left_of_one():
    stage = Stage(synthesiser=Parrot())
    for text in ("one", "two", "three"):
        stage.session.say(text, stage.now)
    stage.hear(0.9)
    assert turns(stage) == [(1, "one"), (2, "two")]  # a second is left of one of them
    stage.hear(0.1)
    chunks = stage.of(SpeechChunk)
    assert [c.text for c in chunks] == ["one", "two", "three"]
    assert [c.stamp_ns for c in chunks] == [at(0), at(1), at(2)]


def test_a_text_that_waits_is_taken_back_and_nothing_else_falls_silent():
    stage = Stage(talk(4.0), synthesiser=Parrot())
    stage.hear(1.0)
    first, second = (stage.session.say(text, stage.now) for text in ("first", "second"))
    assert stage.session.unsay(first)
    stage.hear(4.0)
    assert [turn for turn, _ in turns(stage)] == [1, 1, 1, 1, second]
    assert stage.session.epoch == 0
    assert stage.session.spoken(first) == Spoken(True, False, "")


def test_a_text_does_not_part_a_turn_that_the_brain_begins_meanwhile():
    stage = Stage(talk(1.0, "a b", end=False), talk(1.0, "c d"), synthesiser=Parrot())
    stage.worker.held = True
    stage.hear(1.0)  # a unit is in work
    said = stage.session.say("later", stage.now)
    stage.worker.run(2)
    assert [text for _, text in turns(stage)] == ["a b"]
    stage.worker.held = False
    stage.hear(2.2)
    own = stage.of(SpeechChunk)[0].turn
    assert turns(stage) == [(own, "a b"), (own, "c d"), (said, "later")]


def test_a_text_that_waits_for_its_synthesis_is_interrupted():
    stage = Stage(synthesiser=Parrot())
    stage.worker.held = True
    said = stage.session.say("hello there", stage.now)
    assert stage.session.interrupt("enough", stage.now).success
    stage.worker.run(1)
    assert turns(stage) == []
    assert stage.session.spoken(said) == Spoken(True, False, "")
    assert not stage.session.interrupt("enough", stage.now).success


def test_a_text_of_which_the_speaker_lost_a_part_was_not_heard_to_its_end():
    stage = Stage(synthesiser=Parrot())
    said = stage.session.say("hello there", stage.now)
    stage.session.playback(Playback(at(0.5), 0, said, PlaybackEvent.FINISHED, 12_000, "hello"))
    assert stage.session.spoken(said) == Spoken(True, False, "hello")


def test_a_text_that_cannot_be_synthesised_lets_the_next_one_pass():
    class Choosy(Parrot):
        def speak(self, text):
            if text == "bad":
                raise ValueError("no such letter")
            return super().speak(text)

    stage = Stage(synthesiser=Choosy())
    stage.worker.held = True
    stage.session.say("bad", stage.now)
    good = stage.session.say("good", stage.now)
    stage.worker.run(1)
    stage.hear(0.1)
    stage.worker.run(1)
    assert turns(stage) == [(good, "good")]
    assert any("no such letter" in text for _, text in stage.problems)

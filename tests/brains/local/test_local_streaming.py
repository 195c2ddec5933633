"""The local brain in streaming mode: it reads while somebody speaks, and replies in the silence."""

from __future__ import annotations

import pytest

from minicpmo_ros.brains.api import SessionSetup
from minicpmo_ros.messages import Action
from tests.brains.local.robot import NOBODY, Tones, picture, second, somebody, unreadable

STREAMING = SessionSetup(mode="streaming")
LISTEN, SPEAK = Action.LISTEN, Action.SPEAK


@pytest.fixture
def voice():
    return Tones()


@pytest.fixture
def brain(make, voice):
    brain = make(voice)
    brain.open(STREAMING)
    return brain


def test_while_nobody_speaks_nothing_is_read(brain):
    lengths = set()
    for k in range(3):
        result = brain.unit(second(k, picture(k + 0.5)), NOBODY)
        assert (result.action, result.reason) == (LISTEN, "nobody speaks")
        lengths.add(result.kv_length)
    assert len(lengths) == 1
    assert result.kv_capacity == 1024


def test_the_users_turn_is_read_from_the_second_before_the_voice_to_the_one_that_ends_it(
    brain, prompter
):
    prompter.replies("Yes, I do.")
    empty = brain.unit(second(0), NOBODY).kv_length
    hears = brain.unit(second(1), somebody(1.2, None))
    assert (hears.action, hears.reason) == (LISTEN, "the user's turn goes on")
    assert {timing.stage for timing in hears.timings} == {"prefill"}
    opening = hears.kv_length - empty - 2 * 12
    assert opening > 0
    more = brain.unit(second(2, picture(2.5)), somebody(1.2, None))
    assert more.kv_length == hears.kv_length + 66 + 12
    reply = brain.unit(second(3), somebody(1.2, 3.3))
    assert (reply.action, reply.text, reply.end_of_turn) == (SPEAK, "Yes, I do.", True)
    assert reply.reason == "the user is silent for 700 ms"
    assert {"prefill", "decode", "synthesis"} <= {timing.stage for timing in reply.timings}
    assert brain.unit(second(4), NOBODY).reason == "nobody speaks"


@pytest.mark.parametrize(("turn_end_ms", "stop_s", "replies"), [
    (600, 1.41, False), (600, 1.4, True), (300, 1.41, True), (2000, 0.9, False),
])  # fmt: skip
def test_the_turn_is_over_after_so_long_a_silence(make, prompter, turn_end_ms, stop_s, replies):
    brain = make(turn_end_ms=turn_end_ms)
    brain.open(STREAMING)
    prompter.replies("Yes.")
    brain.unit(second(0), somebody(0.5, None))
    result = brain.unit(second(1), somebody(0.5, stop_s))
    assert (result.action is SPEAK) == replies


def test_a_silence_may_go_on_into_the_next_unit(brain, prompter):
    prompter.replies("Yes.")
    assert brain.unit(second(0), somebody(0.2, 0.9)).action is LISTEN
    result = brain.unit(second(1), NOBODY)
    assert (result.action, result.reason) == (SPEAK, "the user is silent for 1100 ms")


def test_a_turn_in_which_the_clock_went_back_ends_after_a_silence(brain, prompter):
    prompter.replies("Yes.")
    assert brain.unit(second(1000), somebody(1000.2, None)).action is LISTEN
    assert brain.unit(second(1), NOBODY).reason == "the user's turn goes on"
    reply = brain.unit(second(2), NOBODY)
    assert (reply.action, reply.text) == (SPEAK, "Yes.")


def test_a_long_reply_goes_over_several_units_in_whole_words(brain, prompter, voice):
    text = "one two three four five six seven eight nine ten and so on and so on"
    prompter.replies(text)
    results = [brain.unit(second(0), somebody(0, 0.1))]
    while not results[-1].end_of_turn:
        results.append(brain.unit(second(len(results)), NOBODY))
        assert results[-1].reason.startswith("reply goes on")
    assert len(results) > 2
    assert all(result.action is SPEAK for result in results)
    assert "".join(result.text for result in results) == text == "".join(voice.said)
    assert all(said.endswith(" ") for said in voice.said[:-1])


def test_an_interruption_ends_the_reply_and_the_next_turn_is_heard(brain, prompter, voice):
    prompter.replies("one two three four five six seven eight nine ten")
    brain.unit(second(0), somebody(0, 0.1))
    brain.interrupt("one")
    prompter.script.clear()
    result = brain.unit(second(1), somebody(1.0, None))
    assert (result.action, result.text) == (LISTEN, "")
    prompter.replies("Sorry.")
    assert brain.unit(second(2), somebody(1.0, 2.1)).text == "Sorry."
    assert voice.said[-1] == "Sorry."


def test_a_second_question_is_answered_too(brain, prompter):
    for k in (0, 2):
        prompter.replies(f"Answer {k}.")
        assert brain.unit(second(k), somebody(k, k + 0.2)).text == f"Answer {k}."
        brain.unit(second(k + 1), NOBODY)


def test_an_unreadable_picture_is_named_in_every_state(brain, prompter):
    prompter.replies("one two three four five six seven eight nine ten")
    states = [NOBODY, somebody(1, None), somebody(1, 2.1), NOBODY]
    for k, around in enumerate(states):
        result = brain.unit(second(k, unreadable(k + 0.5)), around)
        assert "a picture is unreadable: encoding 'yuv9000'" in result.reason


def test_somebody_who_speaks_longer_than_the_context_holds_is_answered_in_time(make, prompter):
    """No unit fails, however small the context is."""
    for capacity in (256, 512):
        brain = make(kv_capacity=capacity, window_high_tokens=200, window_low_tokens=100)
        brain.open(STREAMING)
        prompter.replies("I see.")
        actions = [brain.unit(second(k), somebody(0, None)).action for k in range(40)]
        assert actions.count(SPEAK) > 0
        # A second of sound has 12 rows, and a quarter is kept for the reply.
        assert actions.index(SPEAK) > capacity * 0.75 / 12 - 8
        prompter.script.clear()


def test_rounds_before_do_not_cut_a_long_turn_short(make, prompter):
    prompter.rest = prompter.tokenizer.control.tts_eos
    brain = make(kv_capacity=512, window="off")
    brain.open(STREAMING)
    lengths = []
    for start in (0, 50, 100):
        heard = 0
        while brain.unit(second(start + heard), somebody(start, None)).action is LISTEN:
            heard += 1
        lengths.append(heard)
    assert max(lengths) - min(lengths) <= 1, lengths


def test_the_reply_can_be_repeated_and_follows_its_seed(make, prompter):
    prompter.rest = None

    def reply(brain, seed):
        brain.open(SessionSetup(mode="streaming", seed=seed))
        return [brain.unit(second(k), somebody(0, 0.1)).text for k in range(4)]

    brain = make()
    one = reply(brain, 1)
    assert any(one)
    assert reply(brain, 2) != one
    assert reply(brain, 1) == one == reply(make(), 1)


def test_settling_and_early_pictures_cost_nothing(brain, prompter):
    brain.unit(second(0), NOBODY)
    brain.picture(picture(1.9))
    brain.settle()
    assert prompter.looked == 0

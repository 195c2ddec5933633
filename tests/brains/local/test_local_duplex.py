"""The local brain in full duplex: what a unit's decision holds, and what it is made from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minicpmo_ros.brains.api import SessionSetup
from minicpmo_ros.errors import BrainError, InputError
from minicpmo_ros.messages import Action
from tests.brains.local.robot import (
    NOBODY,
    Tones,
    ns,
    picture,
    second,
    somebody,
    unreadable,
)


@pytest.fixture
def brain(make):
    brain = make()
    brain.open(SessionSetup())
    return brain


def test_a_unit_that_listens_says_how_likely_what_it_did_was_and_what_it_cost(brain):
    prompt = brain.unit(second(0), NOBODY).kv_length - 1 - 10
    result = brain.unit(second(1, picture(1.5)), NOBODY)
    assert (result.action, result.text, result.speech) == (Action.LISTEN, "", ())
    assert result.reason == "the model listens"
    assert 0.99 < result.p_listen <= 1 and 0 <= result.p_speak < 0.01
    # `<unit>`, a picture between its signs, ten of sound; and of the unit before, its end.
    assert (result.kv_length, result.kv_capacity) == (prompt + 11 + 2 + 1 + 66 + 10, 1024)
    stages = {timing.stage: timing.ms for timing in result.timings}
    assert {"vision", "audio", "prefill", "decode"} <= stages.keys()
    assert all(ms >= 0 for ms in stages.values())


def test_the_models_own_chances_are_given_whatever_is_drawn(make, prompter):
    prompter.rest = None
    brain = make(forced_listens=1)
    brain.open(SessionSetup())
    result = brain.unit(second(0), NOBODY)
    assert result.action is Action.LISTEN
    assert 0 < result.p_listen < 0.5 and 0 < result.p_speak < 0.5
    assert not math.isclose(result.p_listen, result.p_speak)


def test_a_turn_is_spoken_in_whole_words_over_its_units(make, prompter):
    voice = Tones()
    brain = make(voice)
    brain.open(SessionSetup())
    prompter.says("Hello the")
    prompter.says("re you", end=True)
    first, last = (brain.unit(second(k), somebody(0, 1)) for k in (0, 1))
    assert (first.action, first.text, first.end_of_turn) == (Action.SPEAK, "Hello the", False)
    assert (last.action, last.text, last.end_of_turn) == (Action.SPEAK, "re you", True)
    assert voice.said == ["Hello ", "there you"]
    assert [speech.text for speech in (*first.speech, *last.speech)] == voice.said
    assert first.reason == "the model speaks"
    assert last.reason == "the model speaks and ends its turn"
    assert "synthesis" in {timing.stage for timing in first.timings}
    assert brain.unit(second(2), NOBODY).action is Action.LISTEN


def test_without_a_voice_there_is_text_and_the_reason(make, prompter):
    brain = make(None)
    brain.open(SessionSetup())
    assert not brain.capabilities.speaks
    prompter.says("Hello there", end=True)
    result = brain.unit(second(0), NOBODY)
    assert (result.text, result.speech) == ("Hello there", ())
    assert result.reason.endswith("; not spoken: there is no speech synthesiser")


def test_a_turn_that_nobody_asked_for_is_an_alert_with_its_pictures(brain, prompter):
    brain.unit(second(0, picture(0.5)), NOBODY)
    prompter.says("Look out ", end=True)
    (alert,) = brain.unit(second(1, picture(1.5)), NOBODY).alerts
    assert (alert.text, alert.evidence) == ("Look out", (ns(0.5), ns(1.5)))


def test_an_answer_is_no_alert_also_if_the_unit_of_the_question_failed(brain, prompter):
    with pytest.raises(InputError):
        brain.unit(second(0, samples=np.zeros(999, np.int16)), somebody(0, 1))
    prompter.says("Yes", end=True)
    assert brain.unit(second(1), NOBODY).alerts == ()


def test_a_picture_that_is_unreadable_is_named_and_the_others_are_seen(brain):
    listening = brain.unit(second(0), NOBODY).kv_length
    result = brain.unit(second(1, unreadable(1.2), picture(1.5)), NOBODY)
    assert result.reason == (
        "the model listens; a picture is unreadable: encoding 'yuv9000' is unknown; use rgb8"
    )
    assert result.kv_length == listening + 2 + 1 + 66 + 10


def test_sound_that_is_no_second_costs_its_unit_and_nothing_else(brain, make):
    other = make()
    other.open(SessionSetup())
    for spoilt in (np.zeros(15_999, np.int16), np.zeros(16_000, np.int32)):
        with pytest.raises(InputError, match=r"16000|int16"):
            brain.unit(second(0, samples=spoilt), NOBODY)
    result, same = (one.unit(second(1), NOBODY) for one in (brain, other))
    assert (result.p_listen, result.kv_length) == (same.p_listen, same.kv_length)


def test_too_many_pictures_cost_the_unit_and_none_are_no_trouble(brain):
    length = brain.unit(second(0), NOBODY).kv_length
    many = [picture(1 + n / 100) for n in range(50)]
    with pytest.raises(InputError, match=r"a unit has 50 pictures; at most 32"):
        brain.unit(second(1, *many), NOBODY)
    assert brain.unit(second(2), NOBODY).kv_length == length + 2 + 11


@pytest.mark.parametrize("per_unit", [1, 2])
def test_looking_early_changes_nothing_but_when_pictures_are_encoded(make, prompter, per_unit):
    prompter.rest = None
    stamps = [0.3 + 0.5 * n for n in range(10)]
    results = []
    for early in (True, False):
        brain = make(pictures_per_unit=per_unit)
        brain.open(SessionSetup())
        ahead = 0
        made = []
        for k in range(5):
            seen = [picture(s) for s in stamps if k <= s < k + 1]
            if early:
                for one in seen:
                    brain.picture(one)
            before = prompter.looked
            result = brain.unit(second(k, *seen[-per_unit:]), NOBODY)
            ahead += prompter.looked - before
            made.append((result.text, result.p_listen, result.p_speak, result.kv_length))
            brain.settle()
        results.append(made)
        # Of the first unit nobody knows when it ends.
        assert ahead == (per_unit if early else 5 * per_unit)
    assert results[0] == results[1]


def test_a_picture_of_the_next_unit_that_comes_before_this_one_closes_is_seen_early(make, prompter):
    brain = make()
    brain.open(SessionSetup())
    brain.unit(second(0), NOBODY)
    brain.picture(picture(2.9))
    assert prompter.looked == 0
    brain.unit(second(1), NOBODY)
    brain.settle()
    assert prompter.looked == 1
    brain.unit(second(2, picture(2.9)), NOBODY)
    assert prompter.looked == 1


def test_an_unreadable_picture_is_no_trouble_before_its_unit_closes(brain):
    brain.unit(second(0), NOBODY)
    brain.picture(unreadable(1.5))
    brain.settle()
    assert "unreadable" in brain.unit(second(1, unreadable(1.5)), NOBODY).reason


def test_after_an_interruption_the_robot_listens_and_the_rest_of_its_turn_is_gone(make, prompter):
    voice = Tones()
    brain = make(voice)
    brain.open(SessionSetup())
    prompter.says("One two thr")
    assert brain.unit(second(0), NOBODY).action is Action.SPEAK
    brain.interrupt("One")
    prompter.says("ee four")
    assert brain.unit(second(1), NOBODY).action is Action.LISTEN
    prompter.script.clear()
    prompter.says("Five", end=True)
    assert brain.unit(second(2), NOBODY).text == "Five"
    assert voice.said == ["One two ", "Five"]


def test_an_interruption_when_the_turn_is_over_silences_nothing_that_comes(brain, prompter):
    prompter.says("One", end=True)
    brain.unit(second(0), NOBODY)
    brain.interrupt("One")
    prompter.says("Two", end=True)
    assert brain.unit(second(1), NOBODY).text == "Two"


def test_the_same_seed_gives_the_same_conversation_and_another_one_another(make, prompter):
    prompter.rest = None

    def conversation(brain, seed):
        brain.open(SessionSetup(seed=seed))
        units = [brain.unit(second(k), NOBODY) for k in range(6)]
        return [(unit.action, unit.text, unit.p_listen) for unit in units]

    brain = make()
    one = conversation(brain, 1)
    assert any(text for _, text, _ in one)
    assert conversation(brain, 2) != one
    assert conversation(brain, 1) == one == conversation(make(), 1)


def test_a_new_session_has_nothing_of_the_last(make, prompter):
    prompter.rest = None
    used, fresh = make(), make()
    used.open(SessionSetup())
    prompter.script.append(prompter.tokenizer.control.speak)
    for k in range(3):
        used.unit(second(7 + k, picture(7.5 + k)), NOBODY)
    for brain in (used, fresh):
        brain.open(SessionSetup())
    one, other = ([brain.unit(second(k), NOBODY) for k in range(3)] for brain in (used, fresh))
    assert [(r.p_listen, r.text, r.kv_length) for r in one] == [
        (r.p_listen, r.text, r.kv_length) for r in other
    ]


def test_before_it_is_open_and_after_it_is_closed_it_says_what_is_missing(make):
    brain = make()
    for _ in range(2):
        for ask in (lambda: brain.unit(second(0), NOBODY), lambda: brain.picture(picture(0.5))):
            with pytest.raises(BrainError, match="is not open; call open"):
                ask()
        brain.open(SessionSetup())
        assert brain.unit(second(0), NOBODY).action is Action.LISTEN
        brain.close()

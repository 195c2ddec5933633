"""When the reflex brain listens and when it answers."""

from __future__ import annotations

import pytest

from minicpmo_ros.brains.api import SessionSetup
from minicpmo_ros.brains.reflex import ReflexConfig
from minicpmo_ros.brains.reflex.alerts import SUDDEN_LOUD_SOUND
from minicpmo_ros.brains.reflex.wording import interrupted
from minicpmo_ros.messages import NS_PER_S, Action


def actions(results) -> list[int]:
    """Units that speak."""
    return [k for k, r in enumerate(results) if r.action is Action.SPEAK]


def test_it_listens_while_somebody_speaks_and_answers_once_after_the_end(kit):
    world = kit.World(persons=[(1.2, 3.4)])
    results = world.run(12)
    assert actions(results) == [3]
    assert results[2].reason == "voice goes on"
    assert results[3].reason == "end of turn after 2.2 s of speech"
    assert results[3].end_of_turn
    assert results[3].text.startswith("You spoke for 2 seconds.")
    assert [s.text for s in results[3].speech] == [results[3].text]


def test_it_waits_until_the_silence_is_long_enough(kit):
    results = kit.World(persons=[(1.2, 3.8)]).run(6)
    assert results[3].reason == "pause of 200 ms"
    assert actions(results) == [4]


@pytest.mark.parametrize(("endpoint_ms", "unit"), [(100, 3), (400, 4), (1500, 5)])
def test_the_endpoint_decides_how_long_it_waits(kit, endpoint_ms, unit):
    config = ReflexConfig(endpoint_ms=endpoint_ms)
    assert actions(kit.World(config, persons=[(1.2, 3.8)]).run(8)) == [unit]


def test_a_short_pause_does_not_end_a_turn_and_is_not_counted_as_speech(kit):
    results = kit.World(persons=[(1.0, 2.9), (3.1, 4.2)]).run(7)
    assert actions(results) == [4]
    assert results[4].reason == "end of turn after 3.0 s of speech"


def test_a_voice_whose_end_is_reported_late_still_ends_the_turn(kit):
    """A detector knows an end only later: the span was open, and then it is missing."""
    world = kit.World(persons=[(1.5, 3.0000001)])
    world.run(3)
    world.persons.clear()
    assert actions(world.run(3)) == [0]


def test_a_click_that_sounds_like_voice_is_not_answered(kit):
    results = kit.World(persons=[(1.2, 1.3)]).run(5)
    assert actions(results) == []
    assert results[1].reason == "too short for a turn: 0.1 s of speech"


def test_noise_is_not_answered(kit):
    assert actions(kit.World(sounds=[(2, 6, -40.0)]).run(10)) == []


def test_it_does_not_answer_its_own_voice(kit):
    """Voice activity hears the robot through a bad echo canceller, some 200 ms longer."""
    world = kit.World(persons=[(1.2, 3.4)], echo=True)
    results = world.run(40)
    assert actions(results) == [3]
    assert results[4].reason == "robot speaks"


def test_it_does_not_answer_an_utterance_that_others_made_the_robot_say(kit):
    world = kit.World(echo=True)
    world.spoken.append((2.3, 6.5))
    assert actions(world.run(12)) == []


def test_it_does_not_answer_the_echo_of_a_word_shorter_than_a_unit(kit):
    """The robot has begun and ended between two units' ends: robot_speaking never says so."""
    world = kit.World(persons=[(1.2, 3.4)], echo=True, synthesiser=kit.Tones(samples_per_char=200))
    results = world.run(12)
    assert 0.3 < world.spoken[0][1] - world.spoken[0][0] < 0.9
    assert actions(results) == [3]


def test_speech_that_never_sounded_does_not_make_it_deaf(kit):
    """The speaker is gone: who speaks while the robot believes to speak is answered."""
    world = kit.World(persons=[(1.2, 3.4), (5.5, 6.4)])
    first = world.run(4)[3]
    assert len(first.speech[0].data) / first.speech[0].rate_hz > 3
    world.spoken.clear()
    assert actions(world.run(4)) == [2]


def test_who_goes_on_after_the_robot_has_ended_is_answered_for_that_part(kit):
    world = kit.World(persons=[(4.5, 9.4)])
    world.spoken.append((2.0, 6.5))
    results = world.run(11)
    assert actions(results) == [9]
    assert results[9].reason == "end of turn after 2.4 s of speech"


def test_each_turn_gets_its_own_answer(kit):
    results = kit.World(persons=[(1.2, 2.4), (20.1, 23.5)]).run(26)
    assert actions(results) == [2, 23]
    assert "one second" in results[2].text
    assert "3 seconds" in results[23].text


def test_after_an_interruption_it_is_silent_until_the_turn_ends_and_names_what_was_cut(kit):
    world = kit.World(persons=[(1.2, 3.4), (5.6, 8.3)])
    world.run(6)
    world.interrupt("You spoke for 2")
    results = world.run(4)
    assert actions(results) == [2]
    assert results[2].text.startswith('You stopped me after "You spoke for 2". You spoke for')


def test_an_interruption_counts_the_voice_from_its_beginning(kit):
    world = kit.World(persons=[(1.2, 3.4), (5.8, 6.3)], config=ReflexConfig(min_turn_ms=450))
    world.run(6)
    world.interrupt("You")
    assert actions(world.run(1)) == [0]


@pytest.mark.parametrize("heard", ["", "You", "You spoke"])
def test_who_goes_on_after_a_breath_is_not_told_of_an_interruption(kit, heard):
    world = kit.World(persons=[(1.2, 3.4), (4.1, 5.3)])
    world.run(4)
    world.interrupt(heard)
    world.run(1)
    assert world.step().text.startswith("You spoke for one second.")


def test_an_interruption_without_a_voice_is_forgotten(kit):
    world = kit.World(persons=[(1.2, 3.4), (12.0, 13.2)])
    world.run(5)
    world.interrupt("You spoke for 2")
    assert world.step().reason == "interrupted"
    (answer,) = kit.spoken(world.run(10))
    assert "stopped" not in answer


def test_an_alert_is_not_spoken_right_after_an_interruption(kit):
    world = kit.World(persons=[(1.2, 3.4)], sounds=[(5.3, 5.4, -8.0)])
    world.run(5)
    world.interrupt("You")
    interrupted, after = world.run(2)
    assert [a.kind for a in interrupted.alerts] == [SUDDEN_LOUD_SOUND]
    assert interrupted.action is Action.LISTEN
    assert after.reason == f"alert: {SUDDEN_LOUD_SOUND}"


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_a_jump_of_the_clock_ends_a_turn_without_an_answer(kit, jump_s):
    world = kit.World(persons=[(1.2, 3.0001)])
    world.run(3)
    world.persons.clear()
    world.shift_ns = jump_s * NS_PER_S
    assert actions(world.run(4)) == []
    world.persons.append((8.2, 9.3))
    assert len(actions(world.run(5))) == 1


def test_a_unit_that_was_skipped_does_not_lose_the_turn(kit):
    world = kit.World(persons=[(1.2, 4.3)])
    world.run(3)
    world.second += 1
    (answered,) = world.run(1)
    assert answered.reason == "end of turn after 2.1 s of speech"


def test_reopening_forgets_the_conversation(kit):
    world = kit.World(persons=[(1.2, 3.0001)])
    world.run(3)
    world.brain.open(SessionSetup())
    world.persons.clear()
    assert actions(world.run(3)) == []


def test_pictures_before_and_after_a_jump_of_the_clock_are_not_compared(kit):
    world = kit.World(camera=lambda k: kit.walker(70)(1 if k >= 3 else 0), persons=[(3.1, 3.5)])
    world.run(3)
    world.shift_ns = 3600 * NS_PER_S
    assert world.step().text == "You spoke briefly. The picture is moderately bright."


def test_the_robot_quotes_itself_without_quotes_in_quotes() -> None:
    heard = 'You stopped me after "spoke for one second". You spoke for'
    assert interrupted(heard).count('"') == 2
    assert interrupted('and "is dark".') == 'You stopped me after "and is dark".'

"""Alerts: raised when sure, not repeated, renewed, cleared, expired, and spoken if they matter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from minicpmo_ros.brains.reflex import ReflexConfig
from minicpmo_ros.brains.reflex.alerts import (
    CAMERA_COVERED,
    CAMERA_LOST,
    CAMERA_UNREADABLE,
    MICROPHONE_LOST,
    MOTION_AFTER_STILLNESS,
    SUDDEN_DARKNESS,
    SUDDEN_LIGHT,
    SUDDEN_LOUD_SOUND,
)
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import Action, Severity

SILENT = ReflexConfig(spoken_severity="never")


def of_kind(kit, results, kind):
    return [(k, active) for k, name, active in kit.alerts(results) if name == kind]


def covered_at(kit, *seconds):
    return lambda k: kit.dark(k) if k in seconds else kit.room(k)


def test_a_still_and_quiet_world_raises_nothing(kit):
    assert kit.alerts(kit.World().run(120)) == []


def test_a_covered_camera_is_told_once_sure_and_cleared_once_sure(kit):
    world = kit.World(camera=covered_at(kit, *range(5, 11)))
    results = world.run(20)
    assert kit.alerts(results) == [(6, CAMERA_COVERED, True), (12, CAMERA_COVERED, False)]
    note = results[6].alerts[0]
    assert note.severity is Severity.WARNING
    assert note.evidence == (world.ns(5.5), world.ns(6.5))
    assert results[6].text == "I see nothing: the camera is covered, or it is dark."


def test_a_bright_even_picture_is_covered_too_but_is_called_a_surface(kit):
    paper = np.full((120, 160, 3), 200, np.uint8)
    results = kit.World(camera=lambda k: paper).run(3)
    assert results[1].text == "I see only one even surface: the camera may be covered."


def test_one_covered_picture_is_no_alert(kit):
    assert kit.alerts(kit.World(camera=covered_at(kit, 5)).run(10)) == []


def test_one_clear_picture_does_not_end_an_alert(kit):
    camera = covered_at(kit, *range(5, 9), *range(10, 20))
    assert kit.alerts(kit.World(camera=camera).run(20)) == [(6, CAMERA_COVERED, True)]


@pytest.mark.parametrize("period", [2, 4, 6, 10])
def test_a_flickering_cause_does_not_flood(kit, period):
    """Covered for half of each period: never more than one alert in the refractory time."""
    camera = covered_at(kit, *(k for k in range(200) if k % period < period // 2))
    results = kit.World(SILENT, camera=camera).run(200)
    raised = [k for k, active in of_kind(kit, results, CAMERA_COVERED) if active]
    assert len(raised) <= 10
    assert all(b - a >= SILENT.refractory_s for a, b in itertools.pairwise(raised))


def test_raised_and_cleared_alternate(kit):
    camera = covered_at(kit, *(k for k in range(300) if k // 7 % 2))
    results = kit.World(SILENT, camera=camera).run(300)
    states = [active for _, active in of_kind(kit, results, CAMERA_COVERED)]
    assert len(states) > 6
    assert states == [i % 2 == 0 for i in range(len(states))]


def test_an_alert_is_renewed_before_it_means_nothing_while_its_cause_lasts(kit):
    config = ReflexConfig(lifetime_s=10)
    results = kit.World(config, camera=covered_at(kit, *range(5, 100))).run(40)
    assert of_kind(kit, results, CAMERA_COVERED) == [(k, True) for k in (6, 16, 26, 36)]
    assert [k for k, r in enumerate(results) if r.action is Action.SPEAK] == [6]
    assert results[6].alerts[0].lifetime_s == 10


def test_renewals_do_not_delay_the_next_alert_of_its_kind(kit):
    config = ReflexConfig(lifetime_s=10, refractory_s=20)
    results = kit.World(config, camera=covered_at(kit, *range(5, 27), *range(31, 35))).run(36)
    assert of_kind(kit, results, CAMERA_COVERED) == [
        *((k, True) for k in (6, 16, 26)),
        (28, False),
        (32, True),
    ]


def test_what_has_expired_is_not_cleared_any_more(kit):
    config = ReflexConfig(lifetime_s=10)
    results = kit.World(config, camera=lambda k: kit.room(k, 0.25 if 5 <= k < 30 else 1.0)).run(40)
    assert kit.alerts(results) == [(6, SUDDEN_DARKNESS, True), (31, SUDDEN_LIGHT, True)]


def test_an_alert_whose_cause_can_no_longer_be_told_expires(kit):
    """Covered, then no picture at all: it is not renewed, and not cleared on a guess."""
    camera = lambda k: None if k >= 10 else covered_at(kit, *range(5, 10))(k)  # noqa: E731
    config = ReflexConfig(lifetime_s=10)
    results = kit.World(config, camera=camera).run(60)
    assert of_kind(kit, results, CAMERA_COVERED) == [(6, True)]


def test_a_lost_camera_is_told_and_is_back(kit):
    def lost(k):
        return 1000.0 * (k - 4) if 5 <= k < 12 else 0.0

    world = kit.World(camera=lambda k: None if 5 <= k < 12 else kit.room(k), camera_lost_ms=lost)
    results = world.run(20)
    assert kit.alerts(results) == [(6, CAMERA_LOST, True), (13, CAMERA_LOST, False)]
    assert results[6].text == "The camera has sent no picture for 2 seconds."
    assert results[6].alerts[0].evidence == (world.ns(4.5),)


def test_a_lost_microphone_is_critical_and_is_back(kit):
    world = kit.World(mic_lost_ms=lambda k: 1000.0 * (k - 4) if 5 <= k < 9 else 0.0)
    results = world.run(14)
    assert kit.alerts(results) == [(5, MICROPHONE_LOST, True), (10, MICROPHONE_LOST, False)]
    assert results[5].alerts[0].severity is Severity.CRITICAL


def test_pictures_that_cannot_be_read_are_counted_named_and_told(kit):
    world = kit.World(camera=lambda k: kit.undecodable(k) if 3 <= k < 8 else kit.room(k))
    results = world.run(12)
    assert of_kind(kit, results, CAMERA_UNREADABLE) == [(4, True), (9, False)]
    assert "1 unreadable: encoding 'yuv9000' is unknown; use rgb8" in results[3].reason
    assert world.brain.unreadable_pictures == 5


def test_a_bang_in_a_quiet_room_is_told_at_once_with_its_time(kit):
    world = kit.World(sounds=[(5.4, 5.55, -10.0)])
    results = world.run(12)
    assert kit.alerts(results) == [(5, SUDDEN_LOUD_SOUND, True)]
    (evidence,) = results[5].alerts[0].evidence
    assert abs(evidence - world.ns(5.4)) <= world.ns(0.1) - world.ns(0)
    assert results[5].reason.startswith("alert: sudden_loud_sound")


def test_hammering_is_told_once_in_the_refractory_time(kit):
    results = kit.World(SILENT, sounds=[(k + 0.3, k + 0.4, -8.0) for k in range(3, 50)]).run(50)
    assert of_kind(kit, results, SUDDEN_LOUD_SOUND) == [(3, True), (23, True), (43, True)]


def test_loud_sound_that_was_taken_for_a_voice_is_not_sudden_when_the_voice_ends(kit):
    results = kit.World(persons=[(3, 20)], sounds=[(3, 40, -22.0)]).run(40)
    assert of_kind(kit, results, SUDDEN_LOUD_SOUND) == []


def test_a_room_that_is_loud_after_a_jump_of_the_clock_is_nothing_sudden(kit):
    world = kit.World(sounds=[(5.0, 20.0, -15.0)])
    world.run(5)
    world.shift_ns = 3600 * 10**9
    assert kit.alerts(world.run(10)) == []


def test_constant_loud_noise_is_nothing_sudden(kit):
    assert kit.alerts(kit.World(background_dbfs=-12.0).run(60)) == []


def test_a_machine_that_is_switched_on_is_told_once(kit):
    results = kit.World(sounds=[(5.0, 100.0, -15.0)]).run(100)
    assert of_kind(kit, results, SUDDEN_LOUD_SOUND) == [(5, True)]


def test_a_bang_in_loud_noise_needs_to_stand_out(kit):
    faint = kit.World(background_dbfs=-25.0, sounds=[(5.4, 5.6, -10.0)]).run(10)
    assert kit.alerts(faint) == []


def test_the_robots_own_speech_and_a_persons_are_no_sudden_sound(kit):
    person = kit.World(persons=[(3.0, 5.5)]).run(9)
    assert of_kind(kit, person, SUDDEN_LOUD_SOUND) == []
    robot = kit.World(sounds=[(3.1, 6.0, -25.0)])
    robot.spoken.append((3.0, 6.0))
    assert kit.alerts(robot.run(9)) == []


@pytest.mark.parametrize("dbfs", [-30.0, -18.0, -12.0])
def test_loud_and_stressed_speech_is_no_sudden_sound_from_its_first_syllable_on(kit, dbfs):
    syllables = [(k / 4, k / 4 + 0.15, dbfs + 8 * (k % 9 == 0)) for k in range(12, 60)]
    world = kit.World(persons=[(3.0, 15.0)], sounds=syllables, background_dbfs=-90.0)
    assert of_kind(kit, world.run(20), SUDDEN_LOUD_SOUND) == []


def test_a_crash_is_told_even_while_somebody_speaks(kit):
    results = kit.World(persons=[(3.0, 8.5)], sounds=[(5.2, 5.3, -6.0)]).run(7)
    assert of_kind(kit, results, SUDDEN_LOUD_SOUND) == [(5, True)]


def test_the_robots_long_speech_does_not_raise_the_background(kit):
    """After 30 s of its own loud echo it still notices a bang."""
    world = kit.World(sounds=[(3.0, 33.0, -25.0), (36.2, 36.3, -15.0)])
    world.spoken.append((3.0, 33.0))
    assert of_kind(kit, world.run(40), SUDDEN_LOUD_SOUND) == [(36, True)]


def test_sound_that_comes_back_after_a_gap_is_nothing_sudden(kit):
    world = kit.World(background_dbfs=-25.0)
    world.run(5)
    world.filled = ((0, 16_000),)
    world.background_dbfs = -120.0
    world.run(5)
    world.filled, world.background_dbfs = (), -25.0
    assert kit.alerts(world.run(5)) == []


def test_the_light_going_off_and_on_is_told(kit):
    world = kit.World(camera=lambda k: kit.room(k, 0.25 if 5 <= k < 12 else 1.0))
    assert kit.alerts(world.run(20)) == [
        (6, SUDDEN_DARKNESS, True),
        (13, SUDDEN_DARKNESS, False),
        (13, SUDDEN_LIGHT, True),
    ]


def test_a_flash_or_a_slow_dusk_is_no_sudden_change(kit):
    flash = kit.World(camera=lambda k: kit.room(k, 1.5 if k == 5 else 0.8))
    dusk = kit.World(camera=lambda k: kit.room(k, 1.0 - k * 0.01))
    assert kit.alerts(flash.run(10)) == []
    assert kit.alerts(dusk.run(80)) == []


def test_motion_after_long_stillness_is_told(kit):
    moves = kit.walker(70)
    config = ReflexConfig(stillness_s=30)
    camera = lambda k: moves(k) if k > 50 else kit.room(k)  # noqa: E731
    results = kit.World(config, camera=camera).run(70)
    ((unit, kind, active),) = kit.alerts(results)
    assert (kind, active) == (MOTION_AFTER_STILLNESS, True)
    assert unit == 52
    assert all(r.action is Action.LISTEN for r in results)


def test_motion_where_somebody_was_just_speaking_is_no_news(kit):
    moves = kit.walker(70)
    config = ReflexConfig(stillness_s=30)
    camera = lambda k: moves(k) if k > 50 else kit.room(k)  # noqa: E731
    results = kit.World(config, camera=camera, persons=[(40, 42)]).run(70)
    assert kit.alerts(results) == []


@pytest.mark.parametrize(
    ("lowest", "speaks"),
    [("info", True), ("warning", True), ("critical", False), ("never", False)],
)
def test_the_severity_from_which_alerts_are_spoken_can_be_set(kit, lowest, speaks):
    config = ReflexConfig(spoken_severity=lowest)
    results = kit.World(config, camera=kit.dark).run(4)
    assert [a.kind for r in results for a in r.alerts] == [CAMERA_COVERED]
    assert bool(kit.spoken(results)) == speaks


def test_an_alert_waits_until_the_person_has_ended_and_is_not_lost(kit):
    results = kit.World(persons=[(2.0, 8.4)], sounds=[(5.2, 5.3, -6.0)]).run(12)
    (text,) = kit.spoken(results)
    assert results[8].text == text
    assert text.startswith("You spoke for 6 seconds.")
    assert text.endswith("There was a sudden loud sound.")


def test_an_alert_that_waited_too_long_is_no_news(kit):
    results = kit.World(persons=[(2.0, 18.4)], sounds=[(5.2, 5.3, -6.0)]).run(24)
    (text,) = kit.spoken(results)
    assert "loud" not in text


def test_an_answer_that_tells_of_the_camera_replaces_its_alert(kit):
    camera = covered_at(kit, *range(3, 30))
    (text,) = kit.spoken(kit.World(persons=[(2.0, 6.4)], camera=camera).run(12))
    assert text.count("covered") == 1


def test_an_alert_that_waits_is_dropped_when_its_cause_is_gone(kit):
    camera = covered_at(kit, 3, 4, 5)
    lost = lambda k: 1500.0 if k == 4 else 0.0  # noqa: E731
    world = kit.World(persons=[(2.0, 8.4)], camera=camera, mic_lost_ms=lost)
    results = world.run(14)
    assert of_kind(kit, results, MICROPHONE_LOST) == [(4, True), (6, False)]
    (text,) = kit.spoken(results)
    assert text == "You spoke for 6 seconds. The picture is moderately bright and nothing moved."


def test_an_alert_is_not_said_into_the_robots_own_speech(kit):
    world = kit.World(camera=covered_at(kit, *range(3, 30)))
    world.spoken.append((2.0, 7.5))
    results = world.run(10)
    assert of_kind(kit, results, CAMERA_COVERED) == [(4, True)]
    assert [k for k, r in enumerate(results) if r.action is Action.SPEAK] == [7]


@pytest.mark.parametrize(("lowest", "spoken_at"), [("critical", 4), ("never", 7)])
def test_what_is_critical_is_said_into_the_robots_own_speech(kit, lowest, spoken_at):
    config = ReflexConfig(interrupting_severity=lowest)
    world = kit.World(config, mic_lost_ms=lambda k: 2000.0 if k >= 4 else 0.0)
    world.spoken.append((2.0, 7.5))
    results = world.run(10)
    assert of_kind(kit, results, MICROPHONE_LOST) == [(4, True)]
    assert [k for k, r in enumerate(results) if r.action is Action.SPEAK] == [spoken_at]


def test_others_wait_until_it_is_silent(kit):
    world = kit.World(
        camera=covered_at(kit, *range(2, 30)), mic_lost_ms=lambda k: 2000.0 if k >= 4 else 0.0
    )
    world.spoken.append((2.0, 7.5))
    results = world.run(10)
    assert next(k for k, r in enumerate(results) if r.action is Action.SPEAK) == 4
    (critical, later) = [r.text for r in results if r.action is Action.SPEAK]
    assert "microphone" in critical and "camera" not in critical
    assert "camera" in later or "see" in later


def test_a_severity_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="interrupting_severity is 'loud'"):
        ReflexConfig(interrupting_severity="loud")

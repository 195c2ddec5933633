"""What the reflex brain says: only what it sensed, and that it did not."""

from __future__ import annotations

import numpy as np
import pytest

from minicpmo_ros.brains.api import ChatRequest
from minicpmo_ros.brains.reflex import ReflexConfig
from minicpmo_ros.brains.reflex.wording import seconds
from minicpmo_ros.errors import DeviceError, InputError
from minicpmo_ros.messages import Action, Picture


def answer(kit, **world) -> str:
    """The answer to somebody who spoke for two seconds."""
    (text,) = kit.spoken(
        kit.World(ReflexConfig(spoken_severity="never"), persons=[(1.2, 3.4)], **world).run(6)
    )
    return text


def test_it_tells_length_brightness_and_stillness(kit):
    assert (
        answer(kit)
        == "You spoke for 2 seconds. The picture is moderately bright and nothing moved."
    )


@pytest.mark.parametrize(
    ("column", "place"), [(5, "on the left"), (70, "in the middle"), (135, "on the right")]
)
def test_it_tells_where_something_moved(kit, column, place):
    assert answer(kit, camera=kit.walker(column)).endswith(f"and something moved {place}.")


def test_a_turned_camera_is_told_as_all_of_it(kit):
    camera = lambda k: np.roll(kit.room(k), 30 * k, axis=1)  # noqa: E731
    assert answer(kit, camera=camera).endswith("and all of it moved.")


def test_motion_before_the_turn_is_not_told(kit):
    moves = kit.walker(70)
    world = kit.World(camera=lambda k: moves(k) if k < 6 else kit.room(k), persons=[(8.2, 9.4)])
    (text,) = kit.spoken(world.run(12))
    assert text.endswith("nothing moved.")


def test_motion_of_one_turn_is_not_told_after_the_next(kit):
    moves = kit.walker(70)
    world = kit.World(
        camera=lambda k: moves(k) if k < 8 else kit.room(k), persons=[(1.2, 3.4), (12.2, 13.4)]
    )
    first, second = kit.spoken(world.run(16))
    assert first.endswith("something moved in the middle.")
    assert second.endswith("nothing moved.")


def test_the_strongest_motion_of_the_turn_is_told(kit):
    def camera(k):
        rgb = kit.walker(10)(k) if k < 3 else kit.room(k)
        if k == 4:
            rgb[50:80, 130:145] = 250
        return rgb

    world = kit.World(ReflexConfig(), camera=camera, persons=[(1.2, 4.4)])
    assert kit.spoken(world.run(6))[0].endswith("something moved on the left.")


def test_a_hand_over_the_lens_is_no_motion_of_the_scene(kit):
    camera = lambda k: kit.dark(k) if k == 2 else kit.room(k, 0.4)  # noqa: E731
    assert answer(kit, camera=camera).endswith("The picture is dark and nothing moved.")


def test_a_picture_of_long_ago_says_nothing_about_motion_now(kit):
    def camera(k):
        return kit.room(k) if k == 0 else kit.walker(70)(1) if k == 9 else None

    (text,) = kit.spoken(kit.World(camera=camera, persons=[(8.2, 9.4)]).run(12))
    assert text.endswith("The picture is moderately bright.")


def test_a_single_picture_says_nothing_about_motion(kit):
    text = answer(kit, camera=lambda k: kit.room(k) if k == 2 else None)
    assert text.endswith("The picture is moderately bright.")


@pytest.mark.parametrize(
    ("light", "word"), [(0.2, "dark"), (0.7, "moderately bright"), (1.3, "bright")]
)
def test_it_tells_the_brightness(kit, light, word):
    assert f"The picture is {word} and" in answer(kit, camera=lambda k: kit.room(k, light))


def test_it_names_a_colour_that_most_of_the_picture_has(kit):
    lawn = (kit.room(0) * np.array([0.3, 1.0, 0.3])).astype(np.uint8)
    assert "mostly green, and nothing moved" in answer(kit, camera=lambda k: lawn)


def test_it_says_when_it_sees_nothing(kit):
    assert answer(kit, camera=lambda k: None).endswith("I have no picture.")
    assert answer(kit, camera=kit.dark).endswith("the camera is covered, or it is dark.")
    assert answer(kit, camera=kit.undecodable).endswith("I cannot read the camera's pictures.")
    lost = answer(kit, camera=lambda k: None, camera_lost_ms=lambda k: 1000.0 * (k + 1))
    assert lost.endswith("I have had no picture for 4 seconds.")


def test_it_says_what_it_missed_of_the_sound(kit):
    assert "I missed 0.3 seconds of the sound." in answer(kit, filled=((100, 1700),))


def test_it_says_when_noise_hides_the_speaker(kit):
    assert "hardly louder" in answer(kit, background_dbfs=-30.0)
    assert "hardly louder" not in answer(kit, background_dbfs=-50.0)


def test_a_picture_that_is_not_readable_does_not_hide_an_older_one_of_the_unit(kit):
    world = kit.World(persons=[(1.2, 3.4)])
    whole = world._pictures
    world._pictures = lambda k: (*whole(k), kit.undecodable(k))
    (text,) = kit.spoken(world.run(5))
    assert text.endswith("nothing moved.")
    assert world.brain.unreadable_pictures == 5


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0 seconds"), (1.4, "one second"), (1.5, "2 seconds"), (2.5, "3 seconds")],
)
def test_seconds_round_halves_up(value, said):
    assert seconds(value) == said


class Broken:
    """A synthesiser that fails, or gives no sound."""

    def __init__(self, gives) -> None:
        self.gives = gives

    def speak(self, text):
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives


class Mute:
    data, rate_hz, words, text = np.zeros(0, np.int16), 24_000, (), ""


@pytest.mark.parametrize(
    ("synthesiser", "reason"),
    [
        (None, "not spoken: there is no speech synthesiser"),
        (Broken(DeviceError("espeak-ng is gone")), "not spoken: DeviceError: espeak-ng is gone"),
        (Broken(ZeroDivisionError("oops")), "not spoken: ZeroDivisionError: oops"),
        (Broken(Mute()), "not spoken: the synthesiser gave int16 of shape (0,)"),
        (Broken("a string"), "not spoken: AttributeError"),
    ],
)
def test_without_a_voice_it_still_decides_and_says_why_it_is_silent(kit, synthesiser, reason):
    world = kit.World(persons=[(1.2, 3.4)], synthesiser=synthesiser)
    result = world.run(4)[3]
    assert result.action is Action.SPEAK
    assert result.text.startswith("You spoke")
    assert result.speech == ()
    assert reason in result.reason
    assert world.brain.failed_sentences == 1


def chat(kit, **request) -> str:
    return "".join(kit.World().brain.chat(ChatRequest("What do you see?", **request)))


def test_chat_tells_what_the_pictures_and_the_sound_are(kit):
    pictures = tuple(Picture.of(k, kit.walker(70)(k)) for k in range(2))
    sound = np.full(8000, 3277, np.int16)
    assert chat(kit, pictures=pictures, sound=sound) == (
        "I am the reflex brain and have no language model, so I tell you only what I sense: "
        "the picture is moderately bright and something moved in the middle, "
        "and the sound lasts 0.5 seconds at -20 decibels of full scale."
    )


def test_chat_names_what_was_not_given_or_cannot_be_read(kit):
    assert chat(kit).endswith("there is no picture, and there is no sound.")
    assert "the picture cannot be read" in chat(kit, pictures=(kit.undecodable(0),))
    both = (kit.undecodable(0), Picture.of(1, kit.room()))
    assert "(1 of 2 pictures could not be read)" in chat(kit, pictures=both)
    assert "0.1 seconds of silence" in chat(kit, sound=np.zeros(1600, np.int16))


def test_chat_refuses_sound_of_the_wrong_type(kit):
    with pytest.raises(InputError, match=r"shape \(10,\) of float64; it must be int16"):
        chat(kit, sound=np.zeros(10))


def test_chat_is_as_short_as_asked_and_does_not_touch_the_conversation(kit):
    world = kit.World(persons=[(1.2, 3.4)])
    world.run(2)
    pieces = list(world.brain.chat(ChatRequest("?", (kit.undecodable(0),), max_tokens=4)))
    assert "".join(pieces) == "I am the reflex"
    (text,) = kit.spoken(world.run(4))
    assert text == answer(kit)
    assert world.brain.unreadable_pictures == 0

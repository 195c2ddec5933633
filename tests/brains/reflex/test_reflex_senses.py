"""The senses alone: figures of a picture and levels of a sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.brains.reflex.hearing import FLOOR_DBFS, Hearing, level_dbfs, window_levels
from minicpmo_ros.brains.reflex.sight import dominant_colour, is_covered, look, motion
from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import NS_PER_S, Picture
from minicpmo_ros.timeline.unit import Unit

RATE_HZ = 16_000


def view(rgb):
    return look(Picture.of(0, rgb))


def unit(samples, **fields):
    return Unit(0, 0, NS_PER_S, samples, RATE_HZ, **fields)


def noise(dbfs, seed=0, count=RATE_HZ):
    samples = np.random.default_rng(seed).normal(size=count) * 32768 * 10 ** (dbfs / 20)
    return np.clip(samples, -32768, 32767).astype(np.int16)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 255), st.integers(0, 255))
def test_brightness_is_that_of_the_picture_for_every_size(height, width, top, bottom):
    """Two halves of any level; a grid line may fall on the wrong side of the middle row."""
    rgb = np.full((height, width, 3), top, np.uint8)
    rgb[height // 2 :] = bottom
    share = (height - height // 2) / height
    want = (top * (1 - share) + bottom * share) / 255
    assert view(rgb).brightness == pytest.approx(want, abs=1 / 144 + 1e-3)


def test_a_look_is_the_same_at_every_resolution_of_one_scene():
    small = np.kron(np.arange(48 * 64).reshape(48, 64) % 251, np.ones((3, 3))).astype(np.uint8)
    big = np.kron(small, np.ones((9, 9), np.uint8))
    rgb = [np.repeat(picture[:, :, None], 3, axis=2) for picture in (small, big)]
    assert np.array_equal(view(rgb[0]).cells, view(rgb[1]).cells)


def test_a_grey_picture_is_looked_at_like_its_colour_twin():
    grey = np.arange(120 * 160).reshape(120, 160).astype(np.uint8)
    twin = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(view(grey).cells, view(twin).cells)


def test_an_8k_picture_is_only_sampled():
    sky = np.broadcast_to(np.array([40, 80, 255], np.uint8), (4320, 7680, 3))
    assert dominant_colour(view(sky)) == "blue"


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((0, 10, 3), np.uint8),
        np.zeros((10, 0, 3), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros(10, np.uint8),
    ],
)
def test_what_is_no_picture_is_refused_with_its_shape(wrong):
    with pytest.raises(InputError, match=r"shape|empty"):
        view(wrong)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((220, 20, 20), "red"),
        ((220, 20, 60), "red"),
        ((230, 120, 10), "orange"),
        ((220, 210, 30), "yellow"),
        ((30, 180, 40), "green"),
        ((20, 200, 200), "turquoise"),
        ((30, 60, 200), "blue"),
        ((130, 40, 220), "purple"),
        ((240, 60, 170), "pink"),
        ((128, 128, 128), ""),
        ((10, 4, 4), ""),
        ((200, 190, 180), ""),
    ],
)
def test_a_colour_has_its_name_and_grey_has_none(rgb, name):
    assert dominant_colour(view(np.full((60, 80, 3), rgb, np.uint8))) == name


def test_a_picture_of_many_colours_has_no_dominant_one():
    stripes = np.zeros((60, 90, 3), np.uint8)
    for i in range(3):
        stripes[:, 30 * i : 30 * i + 30, i] = 220
    assert dominant_colour(view(stripes)) == ""


def test_sensor_noise_and_a_new_exposure_are_no_motion():
    rng = np.random.default_rng(0)
    scene = rng.integers(40, 160, (120, 160, 1)).repeat(3, axis=2)
    grain = rng.normal(scale=6, size=(2, 120, 160, 3))
    first, second = (np.clip(scene + g, 0, 255).astype(np.uint8) for g in grain)
    assert motion(view(first), view(second), 0.2).fraction == 0.0
    assert motion(view(first), view(second + 25), 0.2).fraction == 0.0


def test_motion_cannot_be_told_when_the_size_or_the_light_changes():
    grey = np.full((60, 80, 3), 100, np.uint8)
    assert motion(view(grey), view(np.full((90, 120, 3), 100, np.uint8)), 0.2) is None
    assert motion(view(grey), view(grey + 80), 0.2) is None


def test_covered_has_hysteresis():
    rng = np.random.default_rng(0)
    faint = view(np.kron(rng.normal(128, 6, (12, 16, 1)), np.ones((10, 10, 3))).astype(np.uint8))
    assert 0.02 < faint.contrast < 0.03
    assert not is_covered(faint, False, 0.02)
    assert is_covered(faint, True, 0.02)


def test_two_colours_of_the_same_luma_are_no_flat_picture():
    rgb = np.zeros((60, 80, 3), np.uint8)
    rgb[:, :40] = (196, 0, 0)
    rgb[:, 40:] = (0, 100, 0)
    assert not is_covered(view(rgb), False, 0.02)


@pytest.mark.parametrize("dbfs", [-60, -40, -20])
def test_levels_are_rms_relative_to_full_scale(dbfs):
    assert level_dbfs(noise(dbfs)) == pytest.approx(dbfs, abs=0.3)
    assert np.median(window_levels(unit(noise(dbfs)))) == pytest.approx(dbfs, abs=0.5)


def test_a_full_scale_sine_has_minus_3_dbfs_and_silence_the_floor():
    sine = (32767 * np.sin(np.arange(RATE_HZ) * 0.3)).astype(np.int16)
    assert level_dbfs(sine) == pytest.approx(-3.01, abs=0.05)
    assert level_dbfs(np.full(100, -32768, np.int16)) == pytest.approx(0.0)
    assert level_dbfs(np.zeros(100, np.int16)) == FLOOR_DBFS
    assert level_dbfs(np.zeros(0, np.int16)) == FLOOR_DBFS


def test_filled_and_muted_sound_has_no_level():
    levels = window_levels(unit(noise(-30), filled=((0, 1), (4001, 8000))))
    assert list(np.nonzero(np.isnan(levels))[0]) == [0, 5, 6, 7, 8, 9]
    assert np.isnan(window_levels(unit(noise(-30), muted=True))).all()


def test_the_background_follows_the_room_and_not_the_voices_in_it():
    hearing = Hearing(20, -32)
    quiet = hearing.hear(unit(noise(-60)), [], [])
    assert quiet.background_dbfs == pytest.approx(-60, abs=1)
    for _ in range(20):
        heard = hearing.hear(unit(noise(-25)), [(0, NS_PER_S)], [])
    assert heard.voice_dbfs == pytest.approx(-25, abs=1)
    assert heard.background_dbfs == quiet.background_dbfs
    for _ in range(20):
        heard = hearing.hear(unit(noise(-40)), [], [])
    assert heard.background_dbfs == pytest.approx(-40, abs=1)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 19))
def test_a_bang_has_the_stamp_of_its_window_wherever_it_falls(window):
    hearing = Hearing(20, -32)
    hearing.hear(unit(noise(-60)), [], [])
    samples = noise(-60, seed=1)
    samples[window * 800 : window * 800 + 800] = noise(-10, count=800)
    bang = hearing.hear(unit(samples), [], []).bang
    assert bang.stamp_ns == window * 50_000_000
    assert bang.level_dbfs == pytest.approx(-10, abs=1)
    assert bang.above_background_db == pytest.approx(50, abs=2)


def test_of_two_bangs_the_louder_is_told():
    hearing = Hearing(20, -32)
    hearing.hear(unit(noise(-60)), [], [])
    samples = noise(-60, seed=1)
    samples[2400:3200] = noise(-20, count=800)
    samples[9600:10_400] = noise(-8, count=800)
    samples[13_600:14_400] = noise(-14, count=800)
    assert hearing.hear(unit(samples), [], []).bang.stamp_ns == 600_000_000


def test_digital_silence_does_not_make_a_soft_sound_loud():
    hearing = Hearing(20, -80)
    hearing.hear(unit(np.zeros(RATE_HZ, np.int16)), [], [])
    samples = np.zeros(RATE_HZ, np.int16)
    samples[8000:] = noise(-50, count=8000)
    assert hearing.hear(unit(samples), [], []).bang is None


def test_somebody_who_speaks_over_the_cancelled_robot_makes_no_sudden_sound():
    """Behind an echo canceller the robot's own voice is silence, and no measure of speech."""
    rng = np.random.default_rng(4)
    hearing = Hearing(loud_jump_db=20.0, loud_dbfs=-32.0)
    quiet = (rng.normal(0, 10, 16_000)).astype(np.int16)
    second = 1_000_000_000
    hearing.hear(unit(quiet), [], [])
    hearing.hear(unit(quiet), [], [(0, second)])
    over = quiet.copy()
    over[8_000:12_000] = rng.normal(0, 7_000, 4_000).astype(np.int16)
    voice = [(500_000_000, 750_000_000)]
    assert hearing.hear(unit(over), voice, [(0, second)]).bang is None

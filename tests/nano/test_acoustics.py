"""Rooms, noise and microphones: levels are as asked, nothing is delayed, and all of it repeats."""

from dataclasses import replace

import numpy as np
import pytest

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.nano import tics
from minicpmo_ros.nano.acoustics import (
    LOUDEST_DBFS,
    OPEN_AIR,
    QUIETEST_DBFS,
    Room,
    _convolve,
    _without_delay,
    warp,
)
from minicpmo_ros.nano.noises import HELD_OUT_NOISES, NOISES, noise, stretch
from minicpmo_ros.nano.pieces import PIECE_RMS, active_rms
from minicpmo_ros.nano.tics import HELD_OUT_TICS, TICS, mutter, tic

RATE_HZ = 16_000


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


def talk(seconds: float = 2.0, seed: int = 5) -> np.ndarray:
    """Something with the rhythm of speech: mumbling between two silences."""
    silence = np.zeros(RATE_HZ // 2, np.float32)
    return np.concatenate([silence, mutter(rng(seed), seconds), silence])


SPEECH = (talk(1.0, 7), talk(1.5, 8))


def test_what_is_measured_with_is_never_trained_with():
    assert not set(NOISES) & set(HELD_OUT_NOISES)
    assert not set(TICS) & set(HELD_OUT_TICS)
    trained, held_out = (
        {
            kind
            for seed in range(150)
            for kind, _ in Room.random(rng(seed), held, speech=SPEECH).noises
        }
        for held in (False, True)
    )
    assert trained == set(NOISES)
    assert held_out == set(HELD_OUT_NOISES)


@pytest.mark.parametrize("samples", [1, 100, 5_000, 400_000])
@pytest.mark.parametrize("kind", NOISES + HELD_OUT_NOISES)
def test_noise_has_its_length_and_level_and_repeats_with_its_seed(kind, samples):
    sound = noise(kind, samples, rng(), SPEECH)
    assert sound.shape == (samples,) and sound.dtype == np.float32
    assert np.abs(sound).max() <= 1.0
    assert np.array_equal(sound, noise(kind, samples, rng(), SPEECH))
    if samples > 1_000:
        assert active_rms(sound) == pytest.approx(PIECE_RMS, rel=0.1)
        assert not np.array_equal(sound, noise(kind, samples, rng(2), SPEECH))


def test_pauses_do_not_lower_the_level_of_what_is_loud():
    loud = 0.1 * rng().standard_normal(16_000).astype(np.float32)
    pause = 1e-3 * rng(2).standard_normal(64_000).astype(np.float32)
    assert active_rms(np.concatenate([pause, loud, pause])) == pytest.approx(0.1, rel=0.02)
    assert active_rms(np.zeros(5, np.float32)) == active_rms(np.zeros(0, np.float32)) == 0.0


def power_below(sound: np.ndarray, hz: float) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float(power[: round(len(power) * hz / (RATE_HZ / 2))].sum() / power.sum())


def test_colours_of_noise_are_what_they_are_called():
    white, pink, brown = (
        power_below(noise(kind, 160_000, rng()), 500) for kind in ("white", "pink", "brown")
    )
    assert white == pytest.approx(500 / 8_000, rel=0.1)
    assert 0.3 < pink < 0.7
    assert brown > 0.9


@pytest.mark.parametrize("kind", ["white", "hum", "knocks", "music", "babble", "crowd"])
@pytest.mark.parametrize("snr_db", [5.0, 20.0])
def test_noise_is_as_far_below_the_speech_as_asked(kind, snr_db):
    clean = replace(OPEN_AIR, level_dbfs=-25.0, speech=SPEECH)
    track = talk()
    alone = clean.hear(track, rng())
    noisy = replace(clean, noises=((kind, snr_db),)).hear(track, rng())
    assert decibels(active_rms(alone)) == pytest.approx(-25, abs=0.5)
    ratio = decibels(active_rms(alone) / active_rms(noisy - alone))
    assert ratio == pytest.approx(snr_db, abs=1.0)


def test_rooms_by_chance_repeat_with_their_seed_and_differ_without():
    track = talk()
    heard = []
    for seed in range(12):
        one, again = (Room.random(rng(seed), speech=SPEECH) for _ in range(2))
        assert QUIETEST_DBFS <= one.level_dbfs <= LOUDEST_DBFS
        assert all(5 <= snr_db <= 40 for _, snr_db in one.noises)
        heard.append(one.hear(track, rng(99)))
        assert np.array_equal(heard[-1], again.hear(track, rng(99)))
        assert heard[-1].shape == track.shape and heard[-1].dtype == np.float32
        steps = heard[-1] * 32768
        assert np.array_equal(steps, np.rint(steps))
        assert steps.min() >= -32768 and steps.max() <= 32767
    assert len({sound.tobytes() for sound in heard}) == 12


def test_every_kind_of_room_comes():
    rooms = [Room.random(rng(seed)) for seed in range(200)]
    assert any(room.clip for room in rooms)
    assert any(room.line is not None for room in rooms)
    assert any(not room.noises for room in rooms)
    dry = sum(len(room.response) < 2_000 for room in rooms)
    assert 40 < dry < 90
    assert any(len(room.response) > 8_000 for room in rooms)


def test_what_is_heard_is_not_delayed():
    click = np.zeros(8_000, np.float32)
    click[4_000] = 1
    for seed in range(20):
        room = replace(Room.random(rng(seed)), noises=(), line=None, clip=0.0)
        heard = np.abs(room.hear(click, rng()))
        assert not heard[:4_000].any()
        assert heard[4_000:4_010].max() > 0.2 * heard.max()


def test_a_track_of_silence_gives_the_noise_alone():
    silence = np.zeros(RATE_HZ, np.float32)
    assert not OPEN_AIR.hear(silence, rng()).any()
    room = replace(OPEN_AIR, level_dbfs=-20.0, noises=(("white", 10.0),))
    assert decibels(active_rms(room.hear(silence, rng()))) == pytest.approx(-30, abs=0.5)
    assert room.hear(silence[:0], rng()).shape == (0,)


def test_a_line_takes_what_is_above_and_below_speech():
    lines = (Room.random(rng(seed)).line for seed in range(200))
    line = next(line for line in lines if line is not None)
    room = replace(OPEN_AIR, noises=(("white", 0.0),), line=line)
    heard = room.hear(np.zeros(10 * RATE_HZ, np.float32), rng())
    assert power_below(heard, 4_500) > 0.99
    assert power_below(heard, 3_000) > 0.6


def test_clipped_sound_has_no_more_than_its_limit():
    room = replace(OPEN_AIR, level_dbfs=-20.0, clip=1.5)
    limit = 1.5 * 10 ** (-20 / 20)
    heard = np.abs(room.hear(talk(), rng()))
    assert heard.max() == pytest.approx(limit, abs=1 / 32768)
    assert (heard > limit - 2 / 32768).sum() > 100


@pytest.mark.parametrize("taps", [1, 2, 700, 9_000])
@pytest.mark.parametrize("samples", [1, 5_000, 70_001])
def test_convolution_in_blocks_is_convolution(samples, taps):
    sound = rng().standard_normal(samples).astype(np.float32)
    response = rng(2).standard_normal(taps).astype(np.float32)
    size = 1 << (samples + taps).bit_length()
    whole = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)
    made = _convolve(sound, response)
    assert made.shape == (samples + taps - 1,)
    np.testing.assert_allclose(made, whole[: samples + taps - 1], atol=1e-3 * np.sqrt(taps))


def test_a_filter_without_delay_has_the_gains_asked_for():
    filter_taps = _without_delay(lambda f: -6.0 * np.minimum(f / 1_000, 2))
    gains = np.abs(np.fft.rfft(filter_taps, RATE_HZ))
    for hz, expected_db in ((1, 0.0), (500, -3.0), (1_000, -6.0), (4_000, -12.0)):
        assert decibels(gains[hz]) == pytest.approx(expected_db, abs=0.3)
    assert np.argmax(np.abs(filter_taps)) == 0


def test_warped_sound_is_shorter_and_higher():
    tone = np.sin(2 * np.pi * 1_000 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    warped = warp(tone, 1.1)
    assert len(warped) == pytest.approx(RATE_HZ / 1.1, abs=2)
    peak = np.argmax(np.abs(np.fft.rfft(warped))) * RATE_HZ / len(warped)
    assert peak == pytest.approx(1_100, abs=3)
    assert warp(tone, 1.0) is tone


@pytest.mark.parametrize("kind", TICS + HELD_OUT_TICS)
def test_tics_are_short_of_one_level_and_repeat_with_their_seed(kind):
    for seed in range(5):
        sound = tic(rng(seed), kind)
        assert sound.dtype == np.float32 and sound.ndim == 1
        assert 0.005 * RATE_HZ < len(sound) < 2 * RATE_HZ
        assert np.isfinite(sound).all() and np.abs(sound).max() <= 1.0
        assert active_rms(sound) == pytest.approx(PIECE_RMS, rel=0.15)
        assert np.array_equal(sound, tic(rng(seed), kind))


def test_tics_by_chance_are_of_their_split(monkeypatch):
    drawn = set()

    def recorded(kind):
        return lambda generator: np.ones(400, np.float32) * (drawn.add(kind) or 1)

    monkeypatch.setattr(tics, "_MAKERS", {kind: recorded(kind) for kind in TICS + HELD_OUT_TICS})
    for held_out, kinds in ((False, TICS), (True, HELD_OUT_TICS)):
        drawn.clear()
        for seed in range(60):
            tic(rng(seed), held_out=held_out)
        assert drawn == set(kinds)


def test_mumbling_and_stretches_of_noise_last_as_long_as_asked():
    assert mutter(rng(), 1.25).shape == (20_000,)
    assert active_rms(mutter(rng(), 1.25)) == pytest.approx(PIECE_RMS, rel=0.1)
    piece = stretch("music", 2.0, rng())
    assert piece.shape == (32_000,)
    assert abs(piece[0]) == abs(piece[-1]) == 0.0


def test_what_is_wrong_is_said():
    with pytest.raises(ConfigError, match=r"'silence'.*white, pink"):
        noise("silence", 100, rng())
    with pytest.raises(ConfigError, match=r"babble.*speech"):
        noise("babble", 100, rng())
    with pytest.raises(ConfigError, match=r"'yodel'.*cough"):
        tic(rng(), "yodel")
    with pytest.raises(ConfigError, match="factor is 3"):
        warp(np.ones(10, np.float32), 3.0)
    with pytest.raises(ConfigError, match="mono"):
        OPEN_AIR.hear(np.ones((10, 2), np.float32), rng())

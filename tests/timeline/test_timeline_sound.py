"""Sound of other rates and channels, jitter and drift: what comes out is what was said."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from minicpmo_ros.messages import NS_PER_S, AudioChunk
from minicpmo_ros.timeline.config import TimelineConfig
from minicpmo_ros.timeline.resampling import predict
from minicpmo_ros.timeline.timeline import Timeline
from tests.timeline.streams import (
    T0,
    Arrival,
    Stream,
    counts_add_up,
    ms,
    noise,
    play,
    prompt,
    sound_of,
)

RATE = 16_000


def tones(rate: int, seconds: float, *hz: float) -> np.ndarray:
    """float64 [samples], full scale shared by the tones."""
    t = np.arange(int(rate * seconds)) / rate
    return sum(30_000 / len(hz) * np.sin(2 * np.pi * f * t + f) for f in hz)


def decibel(error: np.ndarray, sound: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(error**2) / np.mean(sound**2)))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 192_000])
def test_tones_of_any_rate_come_out_within_minus_70_db_at_the_joints_too(rate: int) -> None:
    hz = (220.0, 1_000.0, 3_100.0)
    stream = Stream(np.rint(tones(rate, 4, *hz)).astype(np.int16), rate)
    timeline = Timeline(TimelineConfig())
    heard = sound_of(play(timeline, prompt(stream.chunks(20)))).astype(float)
    expected = tones(RATE, 4, *hz)
    error = heard - expected
    whole = slice(RATE // 2, 4 * RATE - RATE // 2)
    joints = [slice(k * RATE - 32, k * RATE + 32) for k in (1, 2, 3)]
    assert decibel(error[whole], expected[whole]) < -75
    for joint in joints:
        assert decibel(error[joint], expected[joint]) < -70
    counts_add_up(timeline)
    assert timeline.stats.filled == 0


def test_a_prediction_goes_on_with_tones_and_never_runs_away() -> None:
    sound = tones(48_000, 1, 300.0, 2_000.0, 5_000.0)
    assert decibel(predict(sound[:24_000], 96) - sound[24_000:24_096], sound) < -60
    for seed, length in itertools.product(range(5), (1, 2, 5, 40, 300, 5_000)):
        loud = noise(length, seed).astype(float)
        going_on = predict(loud, 2_000)
        assert np.abs(going_on).max() <= 10 * np.abs(loud).max()
    assert not predict(np.zeros(1_000), 100).any()


def test_several_channels_become_their_mean_without_overflow() -> None:
    left = np.array([32_767, -32_768, 1, 2, -1], np.int16)
    right = np.array([32_767, -32_768, 2, 3, -2], np.int16)
    data = np.tile(np.stack([left, right], axis=1), (3_200, 1))
    timeline = Timeline(TimelineConfig())
    (unit,) = timeline.add_audio(AudioChunk(T0, data), T0 + NS_PER_S)
    assert unit.samples[:5].tolist() == [32_767, -32_768, 2, 2, -2]  # halves to the even number


def test_a_change_of_rate_goes_on_where_the_sound_was() -> None:
    hz = 440.0
    first = Stream(np.rint(tones(48_000, 1.5, hz)).astype(np.int16), 48_000)
    late = tones(8_000, 3, hz)[12_000:]
    second = Stream(np.rint(late).astype(np.int16), 8_000, T0 + ms(1500))
    timeline = Timeline(TimelineConfig())
    heard = sound_of(play(timeline, prompt(first.chunks() + second.chunks()))).astype(float)
    expected = tones(RATE, 3, hz)
    assert decibel(heard[100:] - expected[100:], expected) < -40
    assert timeline.stats.filled == 0
    assert timeline.stats.used.ms == 3_000
    counts_add_up(timeline)


@pytest.mark.parametrize("samples", [4_410, 10_007, 30_871])
@pytest.mark.parametrize("rates", [(44_100, 16_000), (8_000, 44_100), (22_050, 48_000)])
def test_a_change_of_rate_leaves_no_hole_wherever_it_falls(
    samples: int, rates: tuple[int, int]
) -> None:
    first = Stream(noise(samples), rates[0])
    second = Stream(noise(2 * rates[1]), rates[1], first.stamp(samples))
    timeline = Timeline(TimelineConfig())
    units = play(timeline, prompt(first.chunks() + second.chunks()))
    assert len(units) >= 2
    assert timeline.stats.filled == timeline.stats.gaps == 0


@pytest.mark.parametrize("unit_ms", [125, 250, 1_000])
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_units_that_end_between_two_samples_of_the_source_have_no_hole(
    unit_ms: int, rate: int
) -> None:
    stream = Stream(noise(2 * rate), rate)
    timeline = Timeline(TimelineConfig(unit_ms=unit_ms))
    units = play(timeline, prompt(stream.chunks(50)))
    assert len(units) >= 2_000 // unit_ms - 1
    assert timeline.stats.filled == 0


def test_resampled_sound_stops_and_starts_at_a_gap_without_leaking_into_it() -> None:
    stream = Stream(noise(96_000), 48_000)
    chunks = stream.chunks()
    timeline = Timeline(TimelineConfig())
    units = play(timeline, prompt(chunks[:4] + chunks[6:]))
    assert units[0].filled == ((6_400, 9_600),)
    assert not units[0].samples[6_400:9_600].any()
    assert np.abs(units[0].samples[9_600:9_700]).max() > 0


@pytest.mark.parametrize("ppm", [-300, -50, 50, 300])
def test_drift_of_the_device_s_clock_stays_within_the_jitter_and_is_counted(ppm: int) -> None:
    # A device whose second is longer or shorter: its sound is a ramp, so that every sample tells
    # when it was captured.
    seconds, chunk = 400, 1_600
    stretch = 1 + ppm * 1e-6
    timeline = Timeline(TimelineConfig(jitter_ms=20))
    worst = 0.0
    for i in range(seconds * 10):
        data = (np.arange(i * chunk, (i + 1) * chunk) % 30_011 + 1).astype(np.int16)
        stamp = T0 + round(i * 0.1 * stretch * NS_PER_S)
        for unit in timeline.add_audio(AudioChunk(stamp, data, RATE, i), stamp + ms(100)):
            at = int(np.flatnonzero(unit.samples)[0])
            place = (unit.start_ns - T0) / NS_PER_S * RATE + at
            number = int(unit.samples[at]) - 1
            off = (number - place / stretch + 15_005) % 30_011 - 15_005
            worst = max(worst, abs(off) / 16)
    assert worst <= 21
    drift_ms = seconds * abs(ppm) * 1e-3
    counted_ms = timeline.stats.filled / 16 if ppm > 0 else timeline.stats.overlap.ms
    assert abs(counted_ms - drift_ms) <= 21
    if drift_ms > 40:
        assert timeline.stats.filled / 16 + timeline.stats.overlap.ms == pytest.approx(counted_ms)
        assert counted_ms > 0
    counts_add_up(timeline)


@pytest.mark.parametrize("off_ms,filled_ms,overlap_ms", [(19, 0, 0), (21, 21, 0), (-21, 0, 21)])
def test_beyond_the_jitter_stamps_decide(off_ms: int, filled_ms: int, overlap_ms: int) -> None:
    stream = Stream(noise(2 * RATE + 1_600))
    chunks = [
        AudioChunk(c.stamp_ns + (ms(off_ms) if c.sequence > 4 else 0), c.data, RATE, c.sequence)
        for c in stream.chunks()
    ]
    timeline = Timeline(TimelineConfig(jitter_ms=20))
    units = play(timeline, prompt(chunks))
    assert units[0].filled_ms == filled_ms
    assert timeline.stats.overlap.ms == overlap_ms
    shift = 16 * (filled_ms - overlap_ms)
    np.testing.assert_array_equal(
        sound_of(units)[9_600 : 2 * RATE], stream.data[9_600 - shift : 2 * RATE - shift]
    )


@pytest.mark.parametrize("step_ms", [-6.01, 6.01])
def test_a_correction_of_drift_is_the_same_however_the_chunks_are_cut(step_ms: float) -> None:
    # Every tenth of a second the stamps are off by six milliseconds more.
    data, heard = noise(RATE), []
    for size in (160, 400, 1_600):
        chunks = []
        for k in range(10):
            part = Stream(data[k * 1_600 :], RATE, T0 + ms(100 * k) + k * ms(step_ms))
            chunks += [part.chunk(a, a + size) for a in range(0, 1_600, size)]
        timeline = Timeline(TimelineConfig(jitter_ms=20))
        (unit,) = play(timeline, prompt(chunks), T0 + ms(1200))
        corrected = timeline.stats.overlap.count if step_ms < 0 else timeline.stats.filled
        assert corrected >= 2 * 4 * 96
        heard.append((unit.samples.tobytes(), unit.filled, timeline.stats.overlap))
        counts_add_up(timeline)
    assert heard[0] == heard[1] == heard[2]


def test_stamps_rounded_to_a_nanosecond_decide_nothing() -> None:
    # Off by exactly the jitter; a chunk cut in two has stamps that are off by half a ns more.
    data, rate = noise(44_100), 44_100
    for size in (147, 1_111, 4_410):
        early, off = Stream(data, rate), Stream(data, rate, T0 + ms(20))
        chunks = [early.chunk(a, min(a + size, 4_410)) for a in range(0, 4_410, size)]
        chunks += [off.chunk(a, min(a + size, 44_100)) for a in range(4_410, 44_100, size)]
        timeline = Timeline(TimelineConfig(jitter_ms=20))
        play(timeline, [Arrival(c.end_ns + ms(1), c) for c in chunks], T0 + ms(1_200))
        assert timeline.stats.units == 1
        assert timeline.stats.filled == timeline.stats.overlap.count == 0


def test_chunks_shorter_than_the_jitter_that_come_twice_are_used_once() -> None:
    stream = Stream(noise(RATE))
    arrivals = [a for a in prompt(stream.chunks(10)) for _ in range(2)]
    timeline = Timeline(TimelineConfig(jitter_ms=20))
    (unit,) = play(timeline, arrivals)
    np.testing.assert_array_equal(unit.samples, stream.data)
    assert timeline.stats.overlap.ms + timeline.stats.late.ms == 1_000


def test_a_repetition_is_counted_at_once_and_takes_no_room() -> None:
    stream, timeline = Stream(noise(RATE)), Timeline(TimelineConfig())
    chunk = stream.chunk(0, 1_600)
    for _ in range(50):
        timeline.add_audio(chunk, chunk.end_ns)
    assert timeline.stats.pending.count == 1_600
    assert timeline.stats.overlap.count == 49 * 1_600
    counts_add_up(timeline)


def test_a_short_chunk_that_is_lost_is_known_by_its_number_in_spite_of_jitter() -> None:
    stream, timeline = Stream(noise(RATE)), Timeline(TimelineConfig(jitter_ms=20))
    random = np.random.default_rng(5)
    chunks = [
        AudioChunk(c.stamp_ns + int(random.integers(ms(2))), c.data, RATE, c.sequence)
        for c in stream.chunks(10)
        if c.sequence != 40
    ]
    (unit,) = play(timeline, prompt(chunks), T0 + ms(1200))
    (gap,) = [(a, b) for a, b in unit.filled if b < RATE]
    assert gap[0] == 6_400
    assert abs(gap[1] - 6_560) <= 32


def test_silence_with_jitter_is_not_taken_for_a_repetition() -> None:
    random = np.random.default_rng(3)
    chunks = [
        AudioChunk(
            T0 + i * ms(100) + int(random.integers(-ms(9), ms(9))), np.zeros(1_600, np.int16)
        )
        for i in range(41)
    ]
    timeline = Timeline(TimelineConfig(), chunks[0].stamp_ns)
    play(timeline, [Arrival(T0 + i * ms(100) + ms(110), c) for i, c in enumerate(chunks)])
    assert timeline.stats.overlap.count == timeline.stats.filled == 0

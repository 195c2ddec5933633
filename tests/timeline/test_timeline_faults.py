"""Clocks that jump, devices that vanish, data that cannot be right: each has a defined outcome."""

from __future__ import annotations

import numpy as np
import pytest

from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import NS_PER_S, AudioChunk, Picture
from minicpmo_ros.timeline.config import TimelineConfig
from minicpmo_ros.timeline.timeline import Timeline
from tests.timeline.streams import (
    PIXEL,
    T0,
    Arrival,
    Stream,
    contents,
    counts_add_up,
    ms,
    noise,
    picture,
    play,
    prompt,
    sound_of,
)

RATE = 16_000
GOOD = np.ones(1_600, np.int16)


def kinds(timeline: Timeline) -> list[str]:
    return [kind for kind, _ in timeline.events]


@pytest.mark.parametrize(
    "chunk,named",
    [
        (AudioChunk(0, GOOD), "stamped 0 ns"),
        (AudioChunk(-5, GOOD), "stamped -5 ns"),
        (AudioChunk(T0 + ms(601), GOOD), "in the future"),
        (AudioChunk(T0 - ms(60_000), GOOD), "60.100 s ago.*use_sim_time"),
        (AudioChunk(T0, GOOD.astype(np.int32)), "int32; int16 is right"),
        (AudioChunk(T0, np.full(160, np.nan, np.float32)), "float32 with 160 NaN.*int16 is right"),
        (AudioChunk(T0, GOOD.reshape(2, 2, 400)), r"shape \(2, 2, 400\)"),
        (AudioChunk(T0, GOOD.reshape(1, 1600)), "1600 channels; 1 to 8"),
        (AudioChunk(T0, np.zeros((4, 0), np.int16)), "0 channels"),
        (AudioChunk(T0, [1, 2, 3]), "list; a numpy array"),  # type: ignore[arg-type]
        (AudioChunk(T0, np.zeros(160_001, np.int16)), "10.0 s is too long"),
        (AudioChunk(T0, GOOD, 0), "sample rate 0 Hz"),
        (AudioChunk(T0, GOOD, 3_999), "4000 to 192000"),
        (AudioChunk(T0, GOOD, 192_001), "4000 to 192000"),
        (AudioChunk(T0, GOOD, 16e3), "whole number of Hz"),  # type: ignore[arg-type]
    ],
)
def test_bad_sound_is_refused_by_what_is_wrong_and_the_stream_goes_on(
    chunk: AudioChunk, named: str
) -> None:
    stream = Stream(noise(RATE))
    timeline = Timeline(TimelineConfig())
    chunks = stream.chunks()
    play(timeline, prompt(chunks[:1]))
    with pytest.raises(InputError, match=named):
        timeline.add_audio(chunk, T0 + ms(100))
    (unit,) = play(timeline, prompt(chunks[1:]))
    np.testing.assert_array_equal(unit.samples, stream.data)
    assert timeline.stats.rejected_chunks == 1
    assert timeline.stats.chunks == 11
    counts_add_up(timeline)


def test_refused_sound_is_counted_by_its_length_where_it_has_one() -> None:
    timeline = Timeline(TimelineConfig())
    for chunk in (AudioChunk(0, GOOD), AudioChunk(T0, GOOD, 7)):
        with pytest.raises(InputError):
            timeline.add_audio(chunk, T0)
    assert timeline.stats.rejected_chunks == 2
    assert timeline.stats.rejected.ms == 100
    assert timeline.stats.summary()["rejected_ms"] == 100
    counts_add_up(timeline)


def test_empty_sound_is_ignored_and_counted() -> None:
    timeline = Timeline(TimelineConfig())
    assert timeline.add_audio(AudioChunk(T0, np.zeros(0, np.int16)), T0) == []
    assert timeline.stats.empty_chunks == timeline.stats.chunks == 1
    counts_add_up(timeline)


@pytest.mark.parametrize("stamp,named", [(0, "0 ns"), (T0 + ms(501), "future"), (9, "ago")])
def test_pictures_with_bad_stamps_are_refused_and_counted(stamp: int, named: str) -> None:
    timeline = Timeline(TimelineConfig(), T0)
    with pytest.raises(InputError, match=f"picture is stamped .*{named}"):
        timeline.add_picture(picture(stamp), T0)
    assert timeline.stats.pictures_rejected == 1
    counts_add_up(timeline)


def test_a_picture_that_cannot_be_decoded_is_no_matter_of_the_timeline() -> None:
    def broken() -> np.ndarray:
        raise InputError("cut short")

    timeline = Timeline(TimelineConfig(), T0)
    timeline.add_picture(Picture(T0, broken), T0)
    (unit,) = timeline.advance(T0 + ms(1100))
    assert len(unit.pictures) == 1


def test_a_clock_that_goes_back_begins_anew_and_unit_numbers_go_on() -> None:
    stream = Stream(noise(5 * RATE // 2))
    timeline = Timeline(TimelineConfig())
    first = play(timeline, prompt(stream.chunks()))
    held = timeline.stats.pending.count
    second = play(timeline, prompt(stream.chunks()))  # the bag loops
    assert [unit.index for unit in first + second] == [0, 1, 2, 3]
    assert [unit.start_ns for unit in second] == [unit.start_ns for unit in first]
    np.testing.assert_array_equal(sound_of(first), sound_of(second))
    assert timeline.stats.resets == 1
    assert timeline.stats.dropped.count == held == RATE // 2
    assert kinds(timeline).count("restart") == 1
    counts_add_up(timeline)


def test_a_clock_that_goes_back_a_little_changes_nothing() -> None:
    stream = Stream(noise(2 * RATE))
    timeline = Timeline(TimelineConfig(), T0)
    units = []
    for i, chunk in enumerate(stream.chunks()):
        units += timeline.add_audio(chunk, chunk.end_ns)
        units += timeline.advance(chunk.end_ns - ms(300 * (i % 2)))
    assert contents(units) == contents(
        play(Timeline(TimelineConfig(), T0), prompt(stream.chunks()))
    )
    assert timeline.stats.resets == 0


def test_a_clock_that_creeps_back_begins_anew_in_the_end() -> None:
    timeline = Timeline(TimelineConfig(future_ms=500), T0)
    for back_ms in (0, 200, 400):
        timeline.advance(T0 + ms(1_000 - back_ms))
    assert timeline.stats.resets == 0
    timeline.advance(T0 + ms(400))
    assert timeline.stats.resets == 1


def test_a_clock_that_leaps_forward_skips_whole_units() -> None:
    stream, later = Stream(noise(2 * RATE)), T0 + 86_400 * NS_PER_S
    timeline = Timeline(TimelineConfig())
    before = play(timeline, prompt(stream.chunks()[:15]))
    after = play(timeline, prompt(Stream(stream.data, RATE, later + ms(300)).chunks()))
    assert [unit.index for unit in before] == [0]
    assert [unit.index for unit in after] == [1, 86_400, 86_401]
    assert after[0].filled_ms == 500  # what was held is not lost
    assert after[1].start_ns == later
    assert after[1].filled_ms == 300
    assert timeline.stats.skipped_ms == 86_398_000
    assert "skip" in kinds(timeline)
    counts_add_up(timeline)


def test_a_clock_that_leaps_less_gives_silent_units() -> None:
    timeline = Timeline(TimelineConfig(jump_ms=5_000), T0)
    assert len(timeline.advance(T0 + ms(5_900))) == 5
    assert timeline.stats.skipped_ms == 0


def test_the_timeline_waits_while_simulated_time_has_not_begun() -> None:
    timeline = Timeline(TimelineConfig())
    assert timeline.advance(0) == []
    assert timeline.add_audio(AudioChunk(T0, GOOD), 0) == []
    assert timeline.add_picture(picture(T0), 0) == []
    (unit,) = play(timeline, prompt(Stream(noise(RATE), RATE, T0 + ms(500)).chunks()))
    assert unit.start_ns == T0 + ms(500)
    assert timeline.stats.rejected.ms == 100
    assert timeline.stats.pictures_rejected == 1
    counts_add_up(timeline)


def test_stamps_that_go_back_while_the_clock_does_not_are_late() -> None:
    stream = Stream(noise(4 * RATE))
    timeline = Timeline(TimelineConfig())
    arrivals = prompt(stream.chunks())
    # After two seconds the microphone's clock is set back by one and a half.
    arrivals = arrivals[:20] + [
        Arrival(a.now_ns, AudioChunk(a.what.stamp_ns - ms(1500), a.what.data))
        for a in arrivals[20:]
        if isinstance(a.what, AudioChunk)
    ]
    units = play(timeline, arrivals, T0 + ms(4100))
    assert [unit.filled_ms for unit in units] == [0, 0, 1000, 1000]
    assert timeline.stats.late.ms + timeline.stats.overlap.ms == 2_000
    assert "late" in kinds(timeline)
    counts_add_up(timeline)


def test_a_source_ahead_of_the_clock_that_is_put_right_goes_on_after_its_overlap() -> None:
    data = noise(3 * RATE)
    ahead = Stream(data[:RATE], RATE, T0 + ms(400)).chunks()
    right = Stream(data[RATE:], RATE, T0 + ms(1000)).chunks()
    timeline = Timeline(TimelineConfig())
    arrivals = [Arrival(c.end_ns - ms(400), c) for c in ahead] + prompt(right)
    units = play(timeline, arrivals, T0 + ms(3100))
    assert len(units) == 2
    np.testing.assert_array_equal(units[1].samples, data[RATE + 6_400 : 2 * RATE + 6_400])
    assert timeline.stats.late.ms + timeline.stats.overlap.ms == 400
    counts_add_up(timeline)


def test_a_lost_microphone_is_silence_at_the_clock_s_pace_and_comes_back_in_its_place() -> None:
    stream = Stream(noise(8 * RATE))
    chunks = stream.chunks()
    timeline = Timeline(TimelineConfig(lost_ms=1000))
    units = play(timeline, prompt(chunks[:20]))
    for t in range(2_050, 5_000, 50):
        units += timeline.advance(T0 + ms(t))
        silent_ms = t - 2_000
        assert timeline.mic_lost_ms(T0 + ms(t)) == (silent_ms if silent_ms >= 1_000 else 0)
    units += play(timeline, prompt(chunks[50:]))
    assert timeline.mic_lost_ms(T0 + ms(8_000)) == 0
    assert [unit.filled_ms for unit in units] == [0, 0, 1000, 1000, 1000, 0, 0, 0]
    assert [unit.index for unit in units] == list(range(8))
    np.testing.assert_array_equal(sound_of(units[5:]), stream.data[5 * RATE :])
    assert [text for kind, text in timeline.events if kind == "microphone"] == [
        "the microphone is lost: no sound for 1000 ms",
        "the microphone is back",
    ]


def test_a_lost_camera_is_told_and_units_go_on_without_pictures() -> None:
    stream = Stream(noise(4 * RATE))
    timeline = Timeline(TimelineConfig())
    snaps = [Arrival(T0 + ms(t), picture(T0 + ms(t))) for t in (100, 500, 3_200)]
    units = play(timeline, prompt(stream.chunks()[:25]) + snaps[:2])
    assert timeline.camera_lost_ms(T0 + ms(2_500)) == 2_000
    units += play(timeline, prompt(stream.chunks()[25:]) + snaps[2:])
    assert [len(unit.pictures) for unit in units] == [1, 0, 0, 1]
    assert timeline.camera_lost_ms(T0 + ms(3_300)) == 0
    assert kinds(timeline).count("camera") == 2


def test_a_camera_that_nobody_wants_is_not_missed() -> None:
    timeline = Timeline(TimelineConfig(pictures_per_unit=0), T0)
    timeline.advance(T0 + ms(4_000))
    assert timeline.camera_lost_ms(T0 + ms(4_000)) == 0
    assert "camera" not in kinds(timeline)


def test_reset_drops_what_is_held_and_the_next_data_begin_anew() -> None:
    stream = Stream(noise(3 * RATE))
    timeline = Timeline(TimelineConfig())
    chunks = stream.chunks()
    first = play(timeline, prompt(chunks[:14]))
    timeline.add_picture(picture(T0 + ms(1390)), T0 + ms(1400))
    timeline.reset()
    assert timeline.stats.dropped.ms == 400
    assert timeline.stats.pictures_dropped == 1
    second = play(timeline, prompt(chunks[15:]))
    assert [unit.index for unit in first + second] == [0, 1]
    assert second[0].start_ns == T0 + ms(1500)
    np.testing.assert_array_equal(second[0].samples, stream.data[24_000:40_000])
    assert second[0].pictures == ()
    counts_add_up(timeline)


def test_events_that_nobody_takes_do_not_pile_up() -> None:
    timeline = Timeline(TimelineConfig())
    for i in range(600):
        play(timeline, [Arrival(T0 + i * NS_PER_S, AudioChunk(T0 + i * NS_PER_S, GOOD))])
    assert 0 < len(timeline.events) <= 256


def test_a_picture_gives_its_pixels_when_asked() -> None:
    assert Picture.of(T0, PIXEL).rgb().shape == (1, 1, 3)

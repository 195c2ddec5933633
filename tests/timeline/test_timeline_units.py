"""When units begin and close, and what is in them."""

from __future__ import annotations

import tracemalloc
import weakref

import numpy as np
import pytest

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import NS_PER_S, AudioChunk
from minicpmo_ros.timeline.config import RANGES, TimelineConfig
from minicpmo_ros.timeline.timeline import Timeline
from tests.timeline.streams import (
    PIXEL,
    T0,
    Arrival,
    Picture,
    Stream,
    counts_add_up,
    ms,
    noise,
    picture,
    play,
    prompt,
    sound_of,
)

RATE = 16_000


def stream_of(seconds: float, **kwargs: int) -> Stream:
    return Stream(noise(int(seconds * kwargs.get("rate_hz", RATE))), **kwargs)


def test_a_unit_closes_the_moment_its_last_chunk_arrives() -> None:
    stream, timeline = stream_of(2), Timeline(TimelineConfig())
    for chunk in stream.chunks()[:9]:
        assert timeline.add_audio(chunk, chunk.end_ns) == []
    (unit,) = timeline.add_audio(stream.chunks()[9], T0 + NS_PER_S)
    assert (unit.index, unit.start_ns, unit.end_ns) == (0, T0, T0 + NS_PER_S)
    np.testing.assert_array_equal(unit.samples, stream.data[:RATE])
    assert unit.filled == ()
    assert unit.rate_hz == RATE


def test_a_unit_waits_late_ms_for_missing_sound_and_not_longer() -> None:
    stream, timeline = stream_of(1), Timeline(TimelineConfig(late_ms=80))
    play(timeline, prompt(stream.chunks()[:8]))
    assert timeline.advance(T0 + ms(1080)) == []
    (unit,) = timeline.advance(T0 + ms(1080) + 1)
    assert unit.filled == ((12_800, 16_000),)
    assert unit.filled_ms == 200
    assert not unit.samples[12_800:].any()
    assert timeline.stats.gaps == 1
    assert [kind for kind, _ in timeline.events if kind == "gap"] == ["gap"]


def test_sound_for_a_closed_unit_is_dropped_and_counted() -> None:
    stream, timeline = stream_of(2), Timeline(TimelineConfig())
    chunks = stream.chunks()
    play(timeline, prompt(chunks[:9]), T0 + ms(1090))
    units = timeline.add_audio(chunks[9], T0 + ms(1091))
    assert units == []
    assert timeline.stats.late.ms == 100
    (unit,) = play(timeline, prompt(chunks[10:]))
    np.testing.assert_array_equal(unit.samples, stream.data[RATE:])
    assert [kind for kind, _ in timeline.events if kind == "late"] == ["late"]
    counts_add_up(timeline)


def test_a_lost_chunk_in_the_middle_is_silence_in_its_place() -> None:
    stream, timeline = stream_of(1), Timeline(TimelineConfig())
    chunks = stream.chunks()
    (unit,) = play(timeline, prompt(chunks[:3] + chunks[4:]), T0 + ms(1100))
    assert unit.filled == ((4_800, 6_400),)
    np.testing.assert_array_equal(unit.samples[6_400:], stream.data[6_400:])


@pytest.mark.parametrize("length_ms", [5, 10])
def test_a_lost_chunk_shorter_than_the_jitter_is_known_by_its_number(length_ms: int) -> None:
    stream, timeline = stream_of(1), Timeline(TimelineConfig(jitter_ms=20))
    chunks = stream.chunks(length_ms)
    (unit,) = play(timeline, prompt(chunks[:30] + chunks[31:]), T0 + ms(1100))
    assert unit.filled_ms == length_ms
    np.testing.assert_array_equal(unit.samples[RATE // 2 :], stream.data[RATE // 2 :])


def test_a_short_hole_between_unnumbered_chunks_waits_for_the_chunk_that_may_fill_it() -> None:
    stream, timeline = stream_of(1.1), Timeline(TimelineConfig(jitter_ms=20))
    chunks = [stream.chunk(a, a + 160) for a in range(0, 17_600, 160)]
    missing = chunks.pop(50)
    assert play(timeline, prompt(chunks[:102])) == []
    (unit,) = timeline.add_audio(missing, T0 + ms(1060))
    np.testing.assert_array_equal(unit.samples, stream.data[:RATE])


def test_a_unit_does_not_close_over_a_gap_that_a_delayed_chunk_may_fill() -> None:
    stream, timeline = stream_of(1.2), Timeline(TimelineConfig())
    chunks = [
        AudioChunk(c.stamp_ns + 12_345 * (c.sequence % 3), c.data, RATE) for c in stream.chunks()
    ]
    delayed = chunks.pop(9)
    assert play(timeline, prompt(chunks[:9])) == []
    assert timeline.add_audio(chunks[9], T0 + ms(1_050)) == []
    (unit,) = timeline.add_audio(delayed, T0 + ms(1_060))
    np.testing.assert_array_equal(unit.samples, stream.data[:RATE])


def test_one_gap_over_several_units_is_one_gap() -> None:
    stream, timeline = stream_of(5), Timeline(TimelineConfig())
    chunks = stream.chunks()
    units = play(timeline, prompt(chunks[:15] + chunks[38:]))
    assert [unit.filled_ms for unit in units] == [0, 500, 1000, 800, 0]
    assert timeline.stats.gaps == 1
    assert timeline.stats.filled == 2.3 * RATE


def test_a_chunk_may_span_several_units() -> None:
    stream, timeline = stream_of(3.5), Timeline(TimelineConfig())
    units = timeline.add_audio(stream.chunk(0, 56_000), T0 + ms(3500))
    np.testing.assert_array_equal(sound_of(units), stream.data[:48_000])
    assert timeline.stats.pending.ms == 500


def test_a_unit_waits_for_the_chunk_that_spans_its_end() -> None:
    # Chunks of 100 ms that end 10 ms before and 90 ms after the unit: later than late_ms.
    stream, timeline = stream_of(2.09), Timeline(TimelineConfig(late_ms=80), T0)
    chunks = [stream.chunk(max(a, 0), a + 1_600) for a in range(-160, 33_280, 1_600)]
    units = play(timeline, [Arrival(c.end_ns + ms(70), c) for c in chunks])
    np.testing.assert_array_equal(sound_of(units), stream.data[: 2 * RATE])
    assert timeline.stats.filled == timeline.stats.late.count == 0


def test_a_unit_waits_at_most_its_own_length_for_a_long_chunk() -> None:
    stream, timeline = stream_of(4.5), Timeline(TimelineConfig(late_ms=80))
    assert len(timeline.add_audio(stream.chunk(0, 72_000), T0 + ms(4_500))) == 4
    assert timeline.advance(T0 + ms(6_080)) == []
    (unit,) = timeline.advance(T0 + ms(6_081))
    assert unit.filled_ms == 500


def test_jitter_of_numbered_chunks_does_not_make_a_unit_wait() -> None:
    # Stamps in whole milliseconds, as some drivers give: any hole is a whole number of samples.
    stream, timeline = stream_of(1.1), Timeline(TimelineConfig())
    for chunk in stream.chunks():
        stamp = chunk.stamp_ns + ms(3) * (chunk.sequence % 3)
        units = timeline.add_audio(AudioChunk(stamp, chunk.data, RATE, chunk.sequence), stamp)
        assert len(units) == (chunk.sequence == 9)


def test_units_begin_at_the_first_sound() -> None:
    timeline = Timeline(TimelineConfig())
    timeline.advance(T0 - ms(700))
    timeline.add_picture(picture(T0 - ms(300)), T0 - ms(290))
    (unit,) = play(timeline, prompt(stream_of(1).chunks()))
    assert unit.start_ns == T0


def test_units_begin_at_the_earliest_sound_though_a_later_one_arrived_before() -> None:
    stream, timeline = stream_of(1), Timeline(TimelineConfig())
    chunks = stream.chunks(20)
    arrivals = [Arrival(T0 + ms(50), chunk) for chunk in (chunks[1], chunks[0])]
    (unit,) = play(timeline, arrivals + prompt(chunks[2:]))
    assert unit.start_ns == T0
    np.testing.assert_array_equal(unit.samples, stream.data)
    assert timeline.stats.late.count == 0


def test_old_sound_does_not_move_the_beginning() -> None:
    stream, timeline = stream_of(4), Timeline(TimelineConfig())
    chunks = stream.chunks(50)
    arrivals = prompt(chunks[60:])
    arrivals.insert(1, Arrival(arrivals[0].now_ns + 1, chunks[0]))  # three seconds on its way
    arrivals.insert(2, Arrival(arrivals[0].now_ns + 2, chunks[59]))  # and one just in time
    (unit,) = play(timeline, arrivals)
    assert unit.start_ns == chunks[59].stamp_ns
    np.testing.assert_array_equal(unit.samples, stream.data[47_200:63_200])
    assert timeline.stats.late.ms == 50
    counts_add_up(timeline)


def test_sound_too_late_to_be_the_first_is_counted_once_though_the_beginning_moves_before_it() -> (
    None
):
    stream, timeline = stream_of(2), Timeline(TimelineConfig())
    first, inside, last = (stream.chunk(16 * a, 16 * b) for a, b in [(0, 100), (20, 30), (40, 140)])
    for chunk, now_ms in ((last, 140), (inside, 141), (first, 142)):
        timeline.add_audio(chunk, T0 + ms(now_ms))
    (unit,) = timeline.advance(T0 + ms(1_200))
    assert unit.start_ns == T0
    np.testing.assert_array_equal(unit.samples[:2_240], stream.data[:2_240])
    assert timeline.stats.overlap.ms == 70
    counts_add_up(timeline)


def test_sound_before_a_given_start_is_late_at_once_and_what_follows_keeps_its_place() -> None:
    stream = Stream(noise(1_600))
    timeline = Timeline(TimelineConfig(), T0 + ms(50))
    first, missing, last = (stream.chunk(a, b) for a, b in [(560, 640), (640, 864), (864, 880)])
    timeline.add_audio(first, T0 + ms(60))
    assert timeline.stats.late.ms == 5
    timeline.add_audio(last, T0 + ms(61))
    timeline.add_audio(missing, T0 + ms(62))
    (unit,) = timeline.advance(T0 + ms(1200))
    np.testing.assert_array_equal(unit.samples[:80], stream.data[800:880])
    assert timeline.stats.late.ms == 15


def test_units_begin_without_sound_after_a_while() -> None:
    timeline = Timeline(TimelineConfig(start_wait_ms=1000))
    timeline.add_picture(picture(T0), T0 + ms(20))
    assert timeline.advance(T0 + ms(1080)) == []
    (unit,) = timeline.advance(T0 + ms(1080) + 1)
    assert unit.start_ns == T0
    assert [p.stamp_ns for p in unit.pictures] == [T0]
    assert unit.filled_ms == 1000


def test_units_begin_where_they_are_told_to() -> None:
    stream, timeline = stream_of(2), Timeline(TimelineConfig(), T0 + ms(250))
    (unit,) = play(timeline, prompt(stream.chunks()))
    assert unit.start_ns == T0 + ms(250)
    np.testing.assert_array_equal(unit.samples, stream.data[4_000:20_000])
    assert timeline.stats.late.ms == 250


def test_a_unit_is_muted_if_any_of_its_sound_was() -> None:
    stream, timeline = stream_of(3), Timeline(TimelineConfig())
    chunks = [
        AudioChunk(c.stamp_ns, c.data, RATE, c.sequence, muted=c.sequence == 14)
        for c in stream.chunks()
    ]
    assert [unit.muted for unit in play(timeline, prompt(chunks))] == [False, True, False]


def test_a_unit_takes_the_newest_picture_captured_in_it() -> None:
    stream, timeline = stream_of(2), Timeline(TimelineConfig())
    snaps = [Arrival(T0 + ms(t + 5), picture(T0 + ms(t))) for t in (-30, 100, 900, 1200, 1700)]
    units = play(timeline, prompt(stream.chunks()) + snaps)
    assert [[p.stamp_ns - T0 for p in u.pictures] for u in units] == [[ms(900)], [ms(1700)]]
    assert timeline.stats.pictures_dropped == 3
    counts_add_up(timeline)


def test_a_unit_takes_none_if_the_camera_gave_none_and_late_ones_are_counted() -> None:
    stream, timeline = stream_of(2), Timeline(TimelineConfig())
    late = Arrival(T0 + ms(1010), picture(T0 + ms(990)))
    units = play(timeline, [*prompt(stream.chunks()), late])
    assert [unit.pictures for unit in units] == [(), ()]
    assert timeline.stats.pictures_late == 1


def test_pictures_of_two_cameras_at_the_same_time_are_two_and_a_repeated_one_is_one() -> None:
    timeline = Timeline(TimelineConfig(pictures_per_unit=4), T0)
    for frame in ("left", "right", "left"):
        timeline.add_picture(picture(T0 + ms(10), frame), T0 + ms(20))
    (unit,) = timeline.advance(T0 + ms(1100))
    assert [p.frame_id for p in unit.pictures] == ["left", "right"]
    assert timeline.stats.pictures_dropped == 1


def test_pictures_that_no_unit_needs_are_let_go_at_once() -> None:
    timeline = Timeline(TimelineConfig(pictures_per_unit=2), T0)
    snaps = []
    for t in range(0, 900, 10):
        snap = Picture.of(T0 + ms(t), PIXEL)
        snaps.append(weakref.ref(snap))
        timeline.add_picture(snap, T0 + ms(t))
    del snap
    assert sum(ref() is not None for ref in snaps) == 2


def test_memory_does_not_grow() -> None:
    data, timeline, size = noise(1_600), Timeline(TimelineConfig()), []
    tracemalloc.start()
    try:
        for i in range(3_000):
            chunk = AudioChunk(T0 + i * ms(100), data, RATE, i)
            timeline.add_picture(picture(chunk.stamp_ns), chunk.stamp_ns)
            if i % 17:
                timeline.add_audio(chunk, chunk.end_ns)
            timeline.events.clear()
            if i in (300, 2_999):
                size.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert size[1] < size[0] + 100_000
    counts_add_up(timeline)


def test_the_sound_is_the_timeline_s_own_though_the_caller_uses_its_buffer_again() -> None:
    stream, timeline, buffer = stream_of(1), Timeline(TimelineConfig()), np.zeros(1_600, np.int16)
    for chunk in stream.chunks():
        buffer[:] = chunk.data
        units = timeline.add_audio(AudioChunk(chunk.stamp_ns, buffer), chunk.end_ns)
    np.testing.assert_array_equal(units[0].samples, stream.data)


@pytest.mark.parametrize("unit_ms,rate_hz", [(500, 16_000), (250, 8_000), (2_000, 48_000)])
def test_units_of_another_length_or_rate(unit_ms: int, rate_hz: int) -> None:
    stream = stream_of(4, rate_hz=rate_hz)
    timeline = Timeline(TimelineConfig(unit_ms=unit_ms, rate_hz=rate_hz))
    units = play(timeline, prompt(stream.chunks()))
    assert len(units) == 4_000 // unit_ms
    np.testing.assert_array_equal(sound_of(units), stream.data)


@pytest.mark.parametrize("name", list(RANGES))
@pytest.mark.parametrize("value", [-1, 10**9, 1.5, True, "80"])
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is .*{value}.*from \d+ to \d+"):
        TimelineConfig(**{name: value})


@pytest.mark.parametrize(
    "settings,named",
    [
        ({"unit_ms": 333, "rate_hz": 22_050}, "unit_ms"),
        ({"unit_ms": 100, "late_ms": 200}, "late_ms"),
        ({"unit_ms": 8_000}, "jump_ms"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        TimelineConfig(**settings)


def test_a_start_that_is_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="start_ns"):
        Timeline(TimelineConfig(), 0)

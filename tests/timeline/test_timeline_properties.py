"""However the same samples are cut, delayed, doubled or reordered, the same units come out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.messages import NS_PER_S, AudioChunk
from minicpmo_ros.timeline.config import TimelineConfig
from minicpmo_ros.timeline.timeline import Timeline
from tests.timeline.streams import (
    T0,
    Arrival,
    Stream,
    contents,
    counts_add_up,
    ms,
    noise,
    picture,
    play,
    sound_of,
)

RATE = 16_000
LATE_NS = ms(80)
Span = tuple[int, int]
seeds = st.integers(0, 2**32)


@st.composite
def captures(draw: st.DrawFn) -> tuple[list[Span], int | None]:
    """What came of about three seconds: spans of samples with chunks lost between them; and where
    the units start (not halfway between two samples), None for where the sound does."""
    spans, at = [], draw(st.integers(0, 3_000))
    for _ in range(draw(st.integers(1, 4))):
        stop = at + draw(st.integers(1, 20_000))
        spans.append((at, stop))
        at = stop + draw(st.integers(1, 8_000))
    if draw(st.booleans()):
        return spans, None
    samples, ns = draw(st.integers(-24_000, 24_000)), draw(st.integers(-31_000, 31_000))
    return spans, T0 + samples * 62_500 + ns


def deliver(
    stream: Stream,
    spans: list[Span],
    start_ns: int,
    random: np.random.Generator,
    most: int,
    numbered: bool = True,
) -> list[Arrival]:
    """The spans cut at random, each chunk in time for the first unit it belongs to, some twice.

    numbered: count the chunks, as our microphone does; else number them by their first sample,
    which tells that something is missing, but not that nothing is.
    """
    arrivals, sequence, rate = [], 0, stream.rate_hz
    for a, stop in spans:
        while a < stop:
            b = min(a + int(random.integers(1, most)), stop)
            # A chunk that spans a border must be there before the first of its units closes.
            passed = (stream.stamp(a) - start_ns) // NS_PER_S
            border_ns = start_ns + (passed + 1) * NS_PER_S
            if stream.stamp(b) > border_ns + LATE_NS // 2:
                b = a + max(1, (border_ns - stream.stamp(a)) * rate // NS_PER_S)
            chunk = stream.chunk(a, b, sequence if numbered else a)
            latest_ns = min(chunk.end_ns, max(border_ns, chunk.stamp_ns)) + LATE_NS
            for _ in range(random.integers(1, 3)):
                arrivals.append(Arrival(int(random.integers(chunk.end_ns, latest_ns + 1)), chunk))
            a, sequence = b, sequence + 1
        sequence += 1  # the one that was lost
    return arrivals


def written_down(stream: Stream, spans: list[Span], start_ns: int, units: int) -> np.ndarray:
    """The sound of so many units at the stream's rate, directly from the definition of the grid."""
    out = np.zeros(units * stream.rate_hz, np.int16)
    elapsed = 2 * (stream.start_ns - start_ns) * stream.rate_hz
    origin = (elapsed + NS_PER_S) // (2 * NS_PER_S)
    for a, b in spans:
        lo, hi = max(origin + a, 0), min(origin + b, len(out))
        if lo < hi:
            out[lo:hi] = stream.data[lo - origin : hi - origin]
    return out


@given(captures(), seeds, st.sampled_from([40, 400, 3_000, 20_000]))
@settings(max_examples=150)
def test_same_samples_give_the_same_units_however_they_are_cut_and_delivered(
    capture: tuple[list[Span], int | None], seed: int, most: int
) -> None:
    spans, start_ns = capture
    stream = Stream(noise(spans[-1][1], seed))
    grid_ns = stream.stamp(spans[0][0]) if start_ns is None else start_ns
    until_ns = max(stream.stamp(spans[-1][1]), grid_ns) + ms(1500)
    random = np.random.default_rng(seed)
    fine = deliver(stream, spans, grid_ns, random, most, numbered=False)
    coarse = deliver(stream, spans, grid_ns, random, 1_600)
    both = fine + deliver(stream, spans, grid_ns, random, 1_600, numbered=False)
    outcomes = []
    for arrivals in (fine, coarse, both):
        timeline = Timeline(TimelineConfig(start_wait_ms=60_000), start_ns)
        units = play(timeline, arrivals, until_ns)
        outcomes.append(contents(units))
        counts_add_up(timeline)
        sound = sound_of(units)
        np.testing.assert_array_equal(sound, written_down(stream, spans, grid_ns, len(units)))
        assert timeline.stats.used.count == np.count_nonzero(sound)
        assert timeline.stats.filled == np.count_nonzero(sound == 0)
        assert timeline.stats.filled == sum(b - a for u in units for a, b in u.filled)
    assert outcomes[0] == outcomes[1] == outcomes[2]


@given(
    st.sampled_from([4_000, 8_000, 11_025, 22_050, 24_000, 44_100, 44_101, 48_000, 192_000]),
    seeds,
    st.integers(-ms(400), ms(400)) | st.none(),
)
@settings(max_examples=40)
def test_sound_of_any_rate_gives_the_same_units_however_it_is_cut(
    rate: int, seed: int, offset: int | None
) -> None:
    random = np.random.default_rng(seed)
    stream = Stream(noise(int(rate * 2.2), seed), rate)
    spans = [(0, int(rate * 0.7)), (int(rate * 0.75), len(stream.data))]
    start_ns = None if offset is None else T0 + offset
    outcomes = []
    for most in (rate // 20, rate // 3):
        timeline = Timeline(TimelineConfig(), start_ns)
        arrivals = deliver(stream, spans, start_ns or T0, random, most)
        units = play(timeline, arrivals, stream.stamp(len(stream.data)) + ms(1500))
        outcomes.append(contents(units))
        counts_add_up(timeline)
        heard_ms = timeline.stats.heard / 16
        assert abs(heard_ms - timeline.stats.used.ms) < 1
    assert outcomes[0] == outcomes[1]


@given(seeds, st.sampled_from([40, 60, 100]), st.booleans())
@settings(max_examples=60)
def test_jitter_of_stamps_is_not_heard(seed: int, length_ms: int, numbered: bool) -> None:
    random = np.random.default_rng(seed)
    stream = Stream(noise(3 * RATE + 4_000, seed))
    arrivals = []
    for chunk in stream.chunks(length_ms):
        off = 0 if chunk.sequence == 0 else int(random.integers(-ms(19), ms(19)))
        # Half of the drivers stamp in whole milliseconds only.
        off -= (chunk.stamp_ns - T0 + off) % ms(1) if seed % 2 else 0
        sequence = chunk.sequence if numbered else 0
        stamped = AudioChunk(chunk.stamp_ns + off, chunk.data, RATE, sequence)
        for _ in range(random.integers(1, 3)):
            arrivals.append(Arrival(chunk.end_ns + int(random.integers(0, ms(40))), stamped))
    timeline = Timeline(TimelineConfig())
    units = play(timeline, arrivals, T0 + ms(3200))
    np.testing.assert_array_equal(sound_of(units), stream.data[: 3 * RATE])
    assert len(units) == 3
    assert timeline.stats.filled == 0
    assert timeline.stats.used.count == 3 * RATE
    counts_add_up(timeline)


@st.composite
def chaos(draw: st.DrawFn) -> list[Arrival]:
    """Chunks and pictures of any length, rate and loudness, stamped and delivered at random."""
    random = np.random.default_rng(draw(seeds))
    rates = draw(st.lists(st.sampled_from([8_000, 16_000, 44_100, 48_000]), min_size=1, max_size=2))
    spread = draw(st.sampled_from([0, 1, ms(5), ms(30), ms(400)]))
    arrivals, at = [], T0
    for sequence in range(draw(st.integers(1, 80))):
        rate = rates[sequence * len(rates) // 80]
        size = int(random.integers(0, rate // int(random.choice([2, 10, 50, 1000]))))
        data = noise(size, sequence) * np.int16(random.choice([0, 1]))
        stamp = at + int(random.integers(-spread, spread + 1))
        chunk = AudioChunk(stamp, data, rate, sequence, bool(random.random() < 0.1))
        for _ in range(random.choice([0, 1, 1, 1, 2])):
            arrivals.append(Arrival(chunk.end_ns + int(random.integers(0, ms(150))), chunk))
        snap = picture(stamp + int(random.integers(0, ms(100))), str(random.integers(2)))
        arrivals.append(Arrival(snap.stamp_ns + int(random.integers(0, ms(300))), snap))
        at = chunk.end_ns if random.random() < 0.95 else chunk.end_ns + ms(random.integers(1, 1500))
    return arrivals


@given(chaos(), st.booleans(), st.integers(0, 3))
@settings(max_examples=120)
def test_every_sample_and_picture_is_counted_whatever_comes(
    arrivals: list[Arrival], given_start: bool, pictures: int
) -> None:
    config = TimelineConfig(pictures_per_unit=pictures)
    timeline = Timeline(config, T0 if given_start else None)
    last_ns = max(a.now_ns for a in arrivals)
    units = play(timeline, arrivals, last_ns + ms(1500))
    counts_add_up(timeline)
    assert timeline.stats.received.count == sum(
        len(a.what.data) for a in arrivals if isinstance(a.what, AudioChunk)
    )
    for unit, following in pairwise(units):
        assert following.index == unit.index + 1
        assert following.start_ns == unit.end_ns
    for unit in units:
        assert unit.samples.shape == (RATE,)
        assert unit.samples.dtype == np.int16
        assert unit.filled == tuple(sorted(unit.filled))
        assert not any(unit.samples[a:b].any() for a, b in unit.filled)
        assert len(unit.pictures) <= pictures
        assert all(unit.start_ns <= p.stamp_ns < unit.end_ns for p in unit.pictures)


@given(chaos(), seeds)
@settings(max_examples=80)
def test_units_do_not_depend_on_how_often_the_clock_is_read(
    arrivals: list[Arrival], seed: int
) -> None:
    random = np.random.default_rng(seed)
    arrivals = sorted(arrivals, key=lambda a: a.now_ns)
    last_ns = arrivals[-1].now_ns
    once = play(Timeline(TimelineConfig()), arrivals, last_ns + ms(1500))
    timeline, often = Timeline(TimelineConfig()), []
    for arrival, following in zip(arrivals, [*arrivals[1:], arrivals[-1]], strict=True):
        often += play(timeline, [arrival])
        for now_ns in sorted(random.integers(arrival.now_ns, following.now_ns + 1, 5)):
            often += timeline.advance(int(now_ns))
    for now_ns in range(last_ns, last_ns + ms(1501), ms(10)):
        often += timeline.advance(now_ns)
    assert contents(often) == contents(once)


@given(
    st.lists(st.integers(0, 3_000_000_000), max_size=60, unique=True),
    st.integers(0, 4),
    seeds,
)
def test_each_unit_takes_the_newest_pictures_captured_in_it_in_whatever_order_they_come(
    offsets: list[int], per_unit: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    arrivals = []
    for offset in offsets:
        border = (offset // NS_PER_S + 1) * NS_PER_S
        arrived = T0 + int(random.integers(offset, border + LATE_NS))
        arrivals.append(Arrival(arrived, picture(T0 + offset)))
    timeline = Timeline(TimelineConfig(pictures_per_unit=per_unit), T0)
    units = play(timeline, arrivals, T0 + ms(4500))
    for k, unit in enumerate(units):
        within = sorted(o for o in offsets if k * NS_PER_S <= o < (k + 1) * NS_PER_S)
        newest = within[-per_unit:] if per_unit else []
        assert [p.stamp_ns - T0 for p in unit.pictures] == newest
    counts_add_up(timeline)
    assert timeline.stats.pictures_late == 0

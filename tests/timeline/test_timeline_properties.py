"""However the same samples are cut, delayed, doubled or reordered, the same units come out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.timeline.streams import LATE_NS, T0, Arrival, Stream, counts_add_up, ms, noise, play, same

from minicpmo_ros.messages import NS_PER_S, AudioChunk, Picture
from minicpmo_ros.timeline.config import TimelineConfig
from minicpmo_ros.timeline.timeline import Timeline

RATE = 16_000
Span = tuple[int, int]


@st.composite
def captures(draw: st.DrawFn) -> tuple[list[Span], int | None]:
    """What came of about three seconds: spans of samples with chunks lost between them; and where
    the units start (not halfway between two samples), None for where the sound does."""
    spans, at = [], draw(st.integers(0, 3_000))
    for _ in range(draw(st.integers(1, 4))):
        stop = at + draw(st.integers(1, 20_000))
        spans.append((at, stop))
        at = stop + draw(st.integers(1, RATE // 2))
    if draw(st.booleans()):
        return spans, None
    return spans, T0 + draw(st.integers(-24_000, 24_000)) * 62_500 + draw(st.integers(-31_000, 31_000))


def deliver(
    stream: Stream, spans: list[Span], start_ns: int, random: np.random.Generator, most: int
) -> list[Arrival]:
    """The spans cut at random, each chunk in time for the first unit it belongs to, some twice."""
    arrivals, sequence = [], 0
    for a, stop in spans:
        while a < stop:
            b = min(a + int(random.integers(1, most)), stop)
            # A chunk that spans a border must be there before the first of its units closes.
            border_ns = start_ns + ((stream.stamp(a) - start_ns) // NS_PER_S + 1) * NS_PER_S
            if stream.stamp(b) > border_ns + LATE_NS // 2:
                b = a + max(1, (border_ns - stream.stamp(a)) * RATE // NS_PER_S)
            chunk = stream.chunk(a, b, sequence)
            latest_ns = min(chunk.end_ns, max(border_ns, stream.stamp(a))) + LATE_NS
            for _ in range(random.integers(1, 3)):
                arrivals.append(Arrival(int(random.integers(chunk.end_ns, latest_ns + 1)), chunk))
            a, sequence = b, sequence + 1
        sequence += 1  # the one that was lost
    return arrivals


def expected(stream: Stream, spans: list[Span], start_ns: int, units: int) -> np.ndarray:
    """The sound of so many units, written down directly from the definition of the grid."""
    out = np.zeros(units * RATE, np.int16)
    origin = ((stream.stamp(0) - start_ns) * RATE * 2 + NS_PER_S) // (2 * NS_PER_S)
    for a, b in spans:
        at = origin + a
        lo, hi = max(at, 0), min(at + b - a, len(out))
        if lo < hi:
            out[lo:hi] = stream.data[a + lo - at : a + hi - at]
    return out


@given(captures(), st.integers(0, 2**32), st.sampled_from([40, 400, 3_000, 20_000]))
@settings(max_examples=120)
def test_same_samples_give_the_same_units_however_they_are_cut_and_delivered(
    capture: tuple[list[Span], int | None], seed: int, most: int
) -> None:
    spans, start_ns = capture
    stream = Stream(noise(spans[-1][1], seed))
    grid_ns = stream.stamp(spans[0][0]) if start_ns is None else start_ns
    random = np.random.default_rng(seed)
    until_ns = max(stream.stamp(spans[-1][1]), grid_ns) + ms(1500)
    outcomes = []
    for length in (most, 1_600):
        timeline = Timeline(TimelineConfig(start_wait_ms=60_000), start_ns)
        arrivals = deliver(stream, spans, grid_ns, random, length)
        units = play(timeline, arrivals, until_ns)
        counts_add_up(timeline)
        outcomes.append(units)

        sound = np.concatenate([unit.samples for unit in units])
        np.testing.assert_array_equal(sound, expected(stream, spans, grid_ns, len(units)))
        captured = sum(b - a for a, b in spans)
        assert timeline.stats.used.count == np.count_nonzero(sound)
        assert timeline.stats.received.count >= captured
        assert timeline.stats.filled == np.count_nonzero(sound == 0)
        assert timeline.stats.filled == sum(b - a for u in units for a, b in u.filled)
    assert same(*outcomes)

"""Streams for the timeline's tests: samples, their cutting into chunks, and when those arrive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, AudioChunk, Picture
from minicpmo_ros.timeline.timeline import Timeline
from minicpmo_ros.timeline.unit import Unit

T0 = 1_700_000_000 * NS_PER_S + 123_456_789
PIXEL = np.zeros((1, 1, 3), np.uint8)


def ms(value: float) -> int:
    """Milliseconds as ns."""
    return round(value * NS_PER_MS)


def noise(count: int, seed: int = 0) -> np.ndarray:
    """int16 [count], none of them zero, so that silence is recognised."""
    random = np.random.default_rng(seed)
    return (random.integers(1, 30_000, count) * random.choice([-1, 1], count)).astype(np.int16)


@dataclass(frozen=True, eq=False)
class Stream:
    """Samples of one capture: number i was captured at start_ns + i / rate_hz."""

    data: np.ndarray
    rate_hz: int = 16_000
    start_ns: int = T0

    def stamp(self, sample: int) -> int:
        return self.start_ns + round(sample * NS_PER_S / self.rate_hz)

    def chunk(self, start: int, stop: int, sequence: int = 0) -> AudioChunk:
        return AudioChunk(self.stamp(start), self.data[start:stop], self.rate_hz, sequence)

    def chunks(self, length_ms: int = 100) -> list[AudioChunk]:
        step = self.rate_hz * length_ms // 1000
        return [
            self.chunk(a, min(a + step, len(self.data)), i)
            for i, a in enumerate(range(0, len(self.data), step))
        ]


@dataclass(frozen=True, eq=False)
class Arrival:
    """A chunk or a picture, and the time at which it arrives."""

    now_ns: int
    what: AudioChunk | Picture


def prompt(chunks: Iterable[AudioChunk]) -> list[Arrival]:
    """Each chunk arrives when its last sample was captured."""
    return [Arrival(chunk.end_ns, chunk) for chunk in chunks]


def picture(stamp_ns: int, frame_id: str = "") -> Picture:
    return Picture.of(stamp_ns, PIXEL, frame_id)


def play(
    timeline: Timeline, arrivals: Iterable[Arrival], until_ns: int | None = None
) -> list[Unit]:
    """The units that come of these arrivals, in the order of time."""
    units: list[Unit] = []
    now_ns = T0
    for arrival in sorted(arrivals, key=lambda a: a.now_ns):
        now_ns = arrival.now_ns
        if isinstance(arrival.what, AudioChunk):
            units += timeline.add_audio(arrival.what, now_ns)
        else:
            units += timeline.add_picture(arrival.what, now_ns)
    if until_ns is not None:
        while now_ns < until_ns:
            now_ns = min(now_ns + ms(500), until_ns)
            units += timeline.advance(now_ns)
    return units


def sound_of(units: list[Unit]) -> np.ndarray:
    """The sound of all units, int16 [samples]."""
    return np.concatenate([unit.samples for unit in units])


def contents(units: list[Unit]) -> list[tuple[object, ...]]:
    """Everything in the units, comparable to the last bit."""
    return [
        (
            unit.index,
            unit.start_ns,
            unit.end_ns,
            unit.samples.tobytes(),
            unit.filled,
            unit.muted,
            tuple((p.stamp_ns, p.frame_id) for p in unit.pictures),
        )
        for unit in units
    ]


def counts_add_up(timeline: Timeline) -> None:
    """Every sample and picture that came is accounted for, and every sample of every unit."""
    s = timeline.stats
    assert s.received == s.used + s.late + s.overlap + s.rejected + s.dropped + s.pending
    for samples in (s.used, s.late, s.overlap, s.rejected, s.dropped, s.pending):
        assert all(count >= 0 for count in samples.values())
    assert s.heard + s.filled == s.units * timeline.config.unit_samples
    assert s.pictures_received == (
        s.pictures_used
        + s.pictures_late
        + s.pictures_dropped
        + s.pictures_rejected
        + s.pictures_pending
    )

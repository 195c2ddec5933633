"""The sound track: chunks in the order of their stamps become the sound of one unit at a time."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np

from minicpmo_ros.messages import NS_PER_MS, NS_PER_S
from minicpmo_ros.timeline.config import TimelineConfig
from minicpmo_ros.timeline.placing import Placed, ceiling, nearest, place
from minicpmo_ros.timeline.resampling import CONTEXT_MS, resample
from minicpmo_ros.timeline.sound import Sound
from minicpmo_ros.timeline.stats import TimelineStats


@dataclass(frozen=True, eq=False)
class UnitSound:
    """The sound of a unit. samples: int16 [unit_samples]; filled: ranges without sound."""

    samples: np.ndarray
    filled: tuple[tuple[int, int], ...]
    muted: bool


@dataclass(eq=False)
class _Stretch:
    """Sound of one rate without a break: the samples first to stop of that rate's grid."""

    rate_hz: int
    first: int
    stop: int
    pieces: list[np.ndarray] = field(default_factory=list)

    def at_rate(self, rate_hz: int) -> tuple[int, int]:
        """Which samples of another rate's grid lie within."""
        return (
            ceiling(self.first * rate_hz, self.rate_hz),
            ceiling(self.stop * rate_hz, self.rate_hz),
        )

    @property
    def samples(self) -> np.ndarray:
        return self.pieces[0] if len(self.pieces) == 1 else np.concatenate(self.pieces)


class SoundTrack:
    """Sound since one origin. Unit k covers [origin + k, origin + k + 1) units; one is open.

    Chunks are kept in the order of their stamps, each placed behind the one before it. What arrives
    out of order is put where it belongs and what follows is placed anew, until the unit closes:
    from then on a chunk stays where it is. Of closed units only as much is kept as the next one
    needs to go on from: the resampler's context, and the samples that a repeated chunk is known by.
    """

    def __init__(self, config: TimelineConfig, stats: TimelineStats, origin_ns: int) -> None:
        self._config = config
        self._stats = stats
        self._origin_ns = origin_ns
        self._jitter_ns = config.jitter_ms * NS_PER_MS
        self._unit = 0
        self._placed: list[Placed] = []
        self._settled = 0  # so many of them stay where they are
        self._reach: Placed | None = None  # sound has no hole from the unit's start to its end
        self._broken = False  # there is a hole after that
        self.may_move = False  # the origin may still move

    def add(self, sound: Sound) -> None:
        """Place a chunk among the others."""
        stamp = sound.stamp_ns
        at = len(self._placed)
        if at and stamp < self._placed[-1].sound.stamp_ns:
            at = bisect_right(self._placed, stamp, self._settled, key=lambda p: p.sound.stamp_ns)
        placed = self._place(sound, at)
        if placed.repeats:
            self._count_cut(placed)
            return
        self._stats.pending[sound.rate_hz] += len(sound.data)
        if at == self._settled and not self.may_move and self._is_late(placed):
            self._settled += 1
            self._settle(placed)
        followers = self._placed[at:]
        self._placed[at:] = [placed]
        for follower in followers:
            self._placed.append(self._place(follower.sound, len(self._placed)))
        if followers:
            self._measure_reach()
        else:
            self._extend_reach(placed)

    def complete(self) -> bool:
        """Whether sound covers the open unit to its end, and none of it may still be on its way."""
        reach = self._reach
        return reach is not None and reach.stop >= self._border(self._unit + 1, reach.line.rate_hz)

    def due_ns(self) -> int:
        """When the chunk that should reach the open unit's end was captured, as far as the last one
        tells: chunks come whole, so one that spans the end cannot come sooner. 0 if none is due."""
        if not self._placed:
            return 0
        last = self._placed[-1]
        rate = last.sound.rate_hz
        if last.stop >= self._border(self._unit + 1, last.line.rate_hz):
            return 0
        return last.line.stamp_of(last.count) + nearest(len(last.sound.data) * NS_PER_S, rate)

    def waiting(self) -> bool:
        """Whether sound is held for the open unit or a later one."""
        return any(
            p.end > max(p.first, self._border(self._unit, p.sound.rate_hz)) for p in self._placed
        )

    def move_origin(self, origin_ns: int, may_move: bool) -> None:
        """The first unit begins elsewhere than was thought; it may_move until that unit closes."""
        self._origin_ns, self.may_move = origin_ns, may_move
        sounds = [placed.sound for placed in self._placed]
        self._placed = []
        for sound in sounds:
            self._placed.append(self._place(sound, len(self._placed)))
        self._measure_reach()

    def take(self) -> UnitSound:
        """The sound of the open unit; closes it and opens the next."""
        stretches, muted = self._stretches()
        samples = np.zeros(self._config.unit_samples, dtype=np.int16)
        begin = self._unit * len(samples)
        filled: list[tuple[int, int]] = []
        reached = 0
        for stretch in stretches:
            start, stop = stretch.at_rate(self._config.rate_hz)
            start, stop = max(start - begin, 0), min(stop - begin, len(samples))
            if start >= stop:
                continue
            samples[start:stop] = self._render(stretch, begin + start, begin + stop)
            if start > reached:
                filled.append((reached, start))
            reached = stop
        if reached < len(samples):
            filled.append((reached, len(samples)))
        silent = sum(stop - start for start, stop in filled)
        self._stats.filled += silent
        self._stats.heard += len(samples) - silent
        self._close()
        return UnitSound(samples, tuple(filled), muted)

    def skip_to(self, unit: int) -> None:
        """Open this later unit instead; nothing is held for those between."""
        self._unit = unit - 1
        self._close()

    def clear(self) -> None:
        """Drop what waits for a unit."""
        self._stats.dropped.update(self._stats.pending)
        self._stats.pending.clear()
        self._placed.clear()
        self._settled = 0
        self._measure_reach()

    def _border(self, unit: int, rate_hz: int) -> int:
        """The first sample of the unit on the grid of a rate."""
        return ceiling(unit * self._config.unit_ms * rate_hz, 1000)

    def _place(self, sound: Sound, at: int) -> Placed:
        def is_echo(count: int) -> bool:
            return self._is_echo(sound.data[:count], at)

        return place(
            sound,
            self._placed[at - 1] if at else None,
            self._border(self._unit, sound.rate_hz),
            self._origin_ns,
            self._jitter_ns,
            is_echo,
        )

    def _is_echo(self, samples: np.ndarray, at: int) -> bool:
        """Whether these are the samples placed last before position at."""
        while at > 0 and len(samples):
            at -= 1
            tail = self._placed[at].data[-len(samples) :]
            if len(tail):
                if not np.array_equal(samples[-len(tail) :], tail):
                    return False
                samples = samples[: -len(tail)]
        return True

    def _is_late(self, placed: Placed) -> bool:
        """Whether all of it belongs to closed units, by its place and by its stamp."""
        sound, rate = placed.sound, placed.sound.rate_hz
        border = self._border(self._unit, rate)
        by_stamp = nearest((sound.stamp_ns - self._origin_ns) * rate, NS_PER_S)
        return max(placed.stop, by_stamp + len(sound.data)) <= border

    def _extend_reach(self, placed: Placed) -> None:
        if placed.hole and placed.first > self._border(self._unit, placed.line.rate_hz):
            self._broken = True
        if not self._broken:
            self._reach = placed

    def _measure_reach(self) -> None:
        self._reach, self._broken = None, False
        for placed in self._placed:
            self._extend_reach(placed)

    def _stretches(self) -> tuple[list[_Stretch], bool]:
        """What the open unit holds, with context before it; and whether any of it was muted."""
        stretches: list[_Stretch] = []
        muted = False
        for placed in self._placed:
            rate = placed.sound.rate_hz
            border, stop = self._border(self._unit, rate), self._border(self._unit + 1, rate)
            start = max(placed.first, border - rate * CONTEXT_MS // 1000)
            stop = min(placed.end, stop)
            if start >= stop:
                continue
            used = stop - max(start, border)
            if used > 0:
                muted |= placed.sound.muted
                self._stats.used[rate] += used
                self._stats.pending[rate] -= used
            if not (stretches and stretches[-1].rate_hz == rate and stretches[-1].stop == start):
                stretches.append(_Stretch(rate, start, start))
            stretches[-1].stop = stop
            stretches[-1].pieces.append(placed.data[start - placed.first : stop - placed.first])
        return stretches, muted

    def _render(self, stretch: _Stretch, start: int, stop: int) -> np.ndarray:
        """Samples start to stop of a stretch on the grid of the units' rate."""
        if stretch.rate_hz == self._config.rate_hz:
            return stretch.samples[start - stretch.first : stop - stretch.first]
        return resample(
            stretch.samples, stretch.first, stretch.rate_hz, self._config.rate_hz, start, stop
        )

    def _close(self) -> None:
        self._unit += 1
        self.may_move = False
        while self._settled < len(self._placed):
            placed = self._placed[self._settled]
            if placed.first >= self._border(self._unit, placed.sound.rate_hz):
                break
            self._settled += 1
            self._settle(placed)
        self._forget()
        self._measure_reach()

    def _settle(self, placed: Placed) -> None:
        """Its place is final: what was cut off it is no longer pending."""
        self._count_cut(placed)
        self._stats.pending[placed.sound.rate_hz] -= placed.late + placed.overlap

    def _count_cut(self, placed: Placed) -> None:
        rate = placed.sound.rate_hz
        self._stats.late[rate] += placed.late
        self._stats.overlap[rate] += placed.overlap

    def _forget(self) -> None:
        """Let go of what lies so far back that no unit to come has a use for it."""
        keep_ms = max(CONTEXT_MS, self._config.jitter_ms)
        old = 0
        while old < self._settled - 1:  # the last settled one tells where sound goes on
            placed = self._placed[old]
            rate = placed.sound.rate_hz
            if placed.end > self._border(self._unit, rate) - rate * keep_ms // 1000:
                break
            old += 1
        del self._placed[:old]
        self._settled -= old

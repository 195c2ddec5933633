"""Where a chunk of sound lies: from its stamp, and from the chunk before it, to sample numbers.

Stamps are not exact. A driver's stamp is off by milliseconds (jitter), a device's clock runs a
little fast or slow (drift), chunks are lost, and some come twice. Samples, on the other hand, are
exact: within a chunk, and from one chunk to the next, they follow one another without a break. So
chunks are counted on from one another as long as their stamps agree with the count to within the
jitter, and stamps decide where they do not, or where the chunks' own numbers say that one is lost.
Since the count is compared with the stamps' own grid and not with the last stamp, drift cannot add
up: beyond the jitter it becomes a gap or an overlap.

The grid: sample i at rate R lies at origin + i / R, for each rate R in use.
All arithmetic is on whole numbers, so the same samples lie in the same place however they are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.timeline.sound import Sound


def nearest(numerator: int, denominator: int) -> int:
    """numerator / denominator rounded to the nearest whole number, halves upwards."""
    return (2 * numerator + denominator) // (2 * denominator)


def ceiling(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


@dataclass(frozen=True, slots=True)
class Line:
    """Samples without a break: number m, captured at head_ns + m / rate_hz, lies at base + m."""

    head_ns: int
    base: int
    rate_hz: int

    def stamp_of(self, number: int) -> int:
        return self.head_ns + nearest(number * NS_PER_S, self.rate_hz)

    def number_at(self, stamp_ns: int) -> int | None:
        """The sample captured at stamp_ns, to a nanosecond of rounding; None if there is none."""
        elapsed = (stamp_ns - self.head_ns) * self.rate_hz
        number = nearest(elapsed, NS_PER_S)
        return number if abs(elapsed - number * NS_PER_S) <= self.rate_hz else None


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A chunk on the grid of its rate, and how far sound reaches after it.

    first: where its first sample that is not cut lies; cut = late + overlap samples off its front.
    line, count: what it counts on, and how many samples of that line there are up to its end.
    stop: where sound ends on the grid. repeats: by its stamp, all of it was there already.
    hole: something before it is missing, or may still be on its way.
    """

    sound: Sound
    line: Line
    count: int
    first: int
    stop: int
    late: int
    overlap: int
    repeats: bool
    hole: bool

    @property
    def data(self) -> np.ndarray:
        """What is left of it: int16 [samples], the samples first, first + 1, ... of the grid."""
        return self.sound.data[self.late + self.overlap :]

    @property
    def end(self) -> int:
        return self.first + len(self.sound.data) - self.late - self.overlap


def place(
    sound: Sound,
    after: Placed | None,
    border: int,
    origin_ns: int,
    jitter_ns: int,
    is_echo: Callable[[int], bool],
) -> Placed:
    """Place sound behind the chunk that comes before it in the order of stamps.

    border: samples below it belong to closed units. is_echo(n): whether the first n samples of
    sound are the very ones that were placed last, which tells a chunk that came twice from one
    whose stamp is merely early.
    """
    rate, size = sound.rate_hz, len(sound.data)
    by_stamp = nearest((sound.stamp_ns - origin_ns) * rate, NS_PER_S)
    if after is None:
        line = Line(sound.stamp_ns, by_stamp, rate)
        return _cut(sound, line, size, by_stamp, by_stamp, border, hole=True)

    old = after.line
    stop, end = after.stop, old.base + after.count
    number = None
    if old.rate_hz == rate:
        number = old.number_at(sound.stamp_ns)
    else:
        # Rounded down: a sample may then be cut where the rate changes, and none is missing.
        stop, end = stop * rate // old.rate_hz, end * rate // old.rate_hz
    ahead_ns = sound.stamp_ns - old.stamp_of(after.count)
    behind = -nearest(ahead_ns * rate, NS_PER_S)  # samples that are there already, by the stamps

    if behind >= size:
        late, overlap = _cuts(end - behind, size, stop, border)
        first = end - behind + size
        return Placed(sound, old, after.count, first, after.stop, late, overlap, True, False)
    drift_ns = sound.stamp_ns - origin_ns - nearest(end * NS_PER_S, rate)
    if number is not None and (behind == 0 or (behind > 0 and is_echo(behind))):
        start = end - behind
        return _cut(sound, old, number + size, start, stop, border, hole=start > stop)

    start = end
    if abs(drift_ns) > jitter_ns:
        start = by_stamp
    elif sound.sequence > after.sound.sequence + 1:
        start = max(end, by_stamp)
    # A whole number of samples missing may be a chunk on its way, unless the numbers follow.
    awaited = number is not None and behind < 0 and sound.sequence != after.sound.sequence + 1
    line = Line(sound.stamp_ns, start, rate)
    return _cut(sound, line, size, start, stop, border, hole=start > stop or awaited)


def _cut(
    sound: Sound, line: Line, count: int, start: int, stop: int, border: int, hole: bool
) -> Placed:
    """sound with its first sample at start, cut where there is sound already or a closed unit."""
    size = len(sound.data)
    late, overlap = _cuts(start, size, stop, border)
    first, stop = start + late + overlap, max(stop, start + size)
    return Placed(sound, line, count, first, stop, late, overlap, False, hole)


def _cuts(start: int, size: int, stop: int, border: int) -> tuple[int, int]:
    """Of size samples from start on, how many lie below border, and how many more below stop."""
    late = min(max(border - start, 0), size)
    cut = min(max(max(stop, border) - start, 0), size)
    return late, cut - late

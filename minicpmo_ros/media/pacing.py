"""When the frames of a recording are due, so that a file stands in for a camera in real time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from minicpmo_ros.messages import NS_PER_MS, NS_PER_S

Clock = Callable[[], int]
Sleep = Callable[[float], None]

_LATE_NS = NS_PER_S
_NAP_NS = 10 * NS_PER_MS


@dataclass(frozen=True)
class Tick:
    """Frame `frame` is due, captured at stamp_ns; `late` frames before it were too late."""

    frame: int
    stamp_ns: int
    late: int


class Pacing:
    """Frames at frame_rate_hz, of which at most rate_hz are wanted; stamps follow from the index.

    Stamp of frame i: start + i / frame_rate_hz, exactly, and never the time of waking up. A reader
    that comes late gets the newest frame due and a count of those it missed. More than a second
    late, or a clock that jumped back (a simulation that starts again): the recording goes on where
    it was, from now. aligned: frames lie on whole multiples of the period since the clock's zero,
    so that the frame is a function of the stamp alone.
    """

    def __init__(
        self,
        frame_rate_hz: float,
        rate_hz: float,
        clock: Clock,
        sleep: Sleep = time.sleep,
        aligned: bool = False,
    ) -> None:
        # 30000/1001 is a rate of films, and floats lose nanoseconds of ROS time.
        self._frame_rate = Fraction(frame_rate_hz).limit_denominator(1001)
        self._rate = min(Fraction(rate_hz).limit_denominator(1001), self._frame_rate)
        self._clock, self._sleep, self._aligned = clock, sleep, aligned
        self._tick = 0
        self._start_ns: int | None = None
        self._closed = False

    def next(self, timeout_s: float) -> Tick | None:
        """Waits for the next wanted frame; None when it is not due within timeout_s, or closed.

        The wait is in short naps: under simulated time the clock may run at any speed or stand.
        """
        left_ns = int(timeout_s * NS_PER_S)
        while not self._closed:
            now_ns = self._clock()
            if self._start_ns is None or self._jumped(now_ns):
                self._rebase(now_ns)
            due_ns = self._stamp_ns(self._tick)
            if now_ns >= due_ns:
                return self._take(now_ns)
            if left_ns <= 0:
                return None
            nap_ns = min(due_ns - now_ns, left_ns, _NAP_NS)
            self._sleep(nap_ns / NS_PER_S)
            left_ns -= nap_ns
        return None

    def close(self) -> None:
        """Ends a wait in another thread within a nap."""
        self._closed = True

    def _take(self, now_ns: int) -> Tick:
        assert self._start_ns is not None
        newest = int((now_ns - self._start_ns) * self._rate // NS_PER_S)
        # Rounding of stamps may put the newest a nanosecond into the future.
        while newest > self._tick and self._stamp_ns(newest) > now_ns:
            newest -= 1
        newest = max(newest, self._tick)
        tick = Tick(self._frame(newest), self._stamp_ns(newest), newest - self._tick)
        self._tick = newest + 1
        return tick

    def _frame(self, tick: int) -> int:
        """The first frame of each period of rate_hz."""
        return -int(-(tick * self._frame_rate) // self._rate)

    def _stamp_ns(self, tick: int) -> int:
        assert self._start_ns is not None
        return self._start_ns + int(self._frame(tick) * NS_PER_S / self._frame_rate)

    def _jumped(self, now_ns: int) -> bool:
        period_ns = int(NS_PER_S / self._rate)
        ahead_ns = self._stamp_ns(self._tick) - now_ns
        return ahead_ns > period_ns + _LATE_NS or -ahead_ns > period_ns + _LATE_NS

    def _rebase(self, now_ns: int) -> None:
        if self._aligned:
            self._start_ns = 0
            self._tick = -int(-(now_ns * self._rate) // NS_PER_S)
        else:
            self._start_ns = now_ns - int(self._frame(self._tick) * NS_PER_S / self._frame_rate)

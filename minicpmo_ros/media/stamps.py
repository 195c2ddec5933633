"""From the times that a sound device reports to stamps in ROS time that run with its samples."""

from __future__ import annotations

from collections.abc import Callable

from minicpmo_ros.messages import NS_PER_MS, NS_PER_S

# A device time further than this from the present is no time at all.
_SANE_S = 2.0


class DeviceTime:
    """Maps the ADC or DAC time that PortAudio passes to a callback to ROS time.

    PortAudio's clock is not the ROS clock, and between the moment at which it reads its clock and
    the one at which Python reads ours, the callback may have waited for the interpreter. That wait
    only ever adds, so the smallest distance between the two clocks of late is the true one.
    """

    def __init__(self, clock: Callable[[], int], window: int = 64) -> None:
        self._clock = clock
        self._distances = [0] * window
        self._count = 0
        self.fallbacks = 0
        """Callbacks whose device time was missing or nonsense."""

    def ros_ns(self, device_s: float, current_s: float, guess_ns: int) -> int:
        """ROS time of `device_s`; current_s is PortAudio's time of this callback.

        Where the device gives no usable time, it is the present plus guess_ns.
        """
        now_ns = self._clock()
        # Written so that a time that is not a number is no time either.
        if not (device_s > 0.0 and current_s > 0.0 and abs(device_s - current_s) <= _SANE_S):
            self.fallbacks += 1
            return now_ns + guess_ns
        window = len(self._distances)
        distance = now_ns - round(current_s * NS_PER_S)
        self._distances[self._count % window] = distance
        self._count += 1
        smallest = min(self._distances if self._count >= window else self._distances[: self._count])
        if distance - smallest > NS_PER_S:
            # The ROS clock jumped ahead (or the machine slept): what was learnt is void.
            self._distances[0] = smallest = distance
            self._count = 1
        return round(device_s * NS_PER_S) + smallest


class StampTracker:
    """Stamps frames of a stream: a straight line through noisy measurements of their time.

    Stamps of consecutive pieces are contiguous: the line follows the drift between the sound
    card's clock and ours by at most `slew_ppm`. Where the measurements agree that the line is off
    by more than `jump_ns` (samples were lost, a clock was set), it is drawn anew and counted. Sound
    servers report latencies that wander by tens of ms when nothing is lost: hence the width.
    """

    def __init__(
        self,
        rate_hz: int,
        jump_ns: int = 60 * NS_PER_MS,
        slew_ppm: int = 200,
        window: int = 50,
        settling: int = 0,
    ) -> None:
        """settling: measurements at the beginning by which the line may move freely.

        It moves freely anyway until the first stamp is given.
        """
        self._rate_hz = rate_hz
        self._settling = settling
        self._jump_ns = jump_ns
        self.slew_ppm = slew_ppm
        self._window = window
        self._seen: list[tuple[int, int]] = []
        self._line: tuple[int, int] | None = None
        self._given = False
        self._off = 0
        self._doubts = 0
        self.jumps = 0
        self.jumped_ns = 0
        """Sum of all jumps: positive where time was lost."""

    @property
    def ready(self) -> bool:
        """Enough was measured for a stamp that can be trusted."""
        return len(self._seen) >= self._RECENT

    # Five of 20 ms: one or two wild measurements do not move a median of five.
    _RECENT = 5

    def doubt(self) -> None:
        """The device says that samples were lost: believe smaller jumps too for half a second."""
        self._doubts = 25

    def observe(self, frame: int, measured_ns: int) -> None:
        """The device says that `frame` (counted from 0) was sampled at measured_ns."""
        seen = self._seen
        if len(seen) == self._window:
            del seen[0]
        seen.append((frame, measured_ns))
        if self._line is None:
            self._line = (frame, measured_ns)
            return
        recent, spread = self._recent_error()
        self._doubts -= self._doubts > 0
        tolerance = self._jump_ns // 4 if self._doubts else self._jump_ns
        self._off = self._off + 1 if abs(recent) > tolerance else 0
        if not self._given or self._settling > 0:
            self._settling -= 1
            self._shift(frame, self._error(seen))
        elif self._off:
            # One jump when the measurements have come to rest; if they never do, then anyway.
            if (self.ready and spread < tolerance // 4) or self._off >= self._window:
                self._shift(frame, recent)
                self.jumps += 1
                self.jumped_ns += recent
                self._off = 0
                del seen[: -self._RECENT]
        else:
            elapsed_ns = (frame - self._line[0]) * NS_PER_S // self._rate_hz
            most = max(0, elapsed_ns * self.slew_ppm // 1_000_000)
            self._shift(frame, max(-most, min(most, self._error(seen))))

    def stamp(self, frame: float) -> int:
        """ROS time in ns of a frame, past or to come. Needs one observation at least."""
        if self._line is None:
            raise RuntimeError("StampTracker.stamp before the first observation")
        self._given = True
        return self._on_line(frame, self._line)

    def _on_line(self, frame: float, line: tuple[int, int]) -> int:
        return line[1] + round((frame - line[0]) * NS_PER_S / self._rate_hz)

    def _error(self, seen: list[tuple[int, int]]) -> int:
        """Median distance of the measurements from the line."""
        assert self._line is not None
        line = self._line
        errors = sorted(measured - self._on_line(frame, line) for frame, measured in seen)
        return errors[len(errors) // 2]

    def _recent_error(self) -> tuple[int, int]:
        """Median of the last few distances from the line, and how far their middle ones spread."""
        assert self._line is not None
        line = self._line
        recent = self._seen[-self._RECENT :]
        errors = sorted(measured - self._on_line(frame, line) for frame, measured in recent)
        middle = len(errors) // 2
        return errors[middle], errors[-1 - middle // 2] - errors[middle // 2]

    def _shift(self, frame: int, shift_ns: int) -> None:
        """Move the line, and its fixed point to `frame`. One store: a reader sees old or new."""
        assert self._line is not None
        self._line = (frame, self._on_line(frame, self._line) + shift_ns)

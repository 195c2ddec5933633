"""The sound of one opened input stream, from the device's callback to stamped samples."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from minicpmo_ros.media.device_stream import StreamFormat
from minicpmo_ros.media.microphone import mono
from minicpmo_ros.media.resample import StreamResampler
from minicpmo_ros.media.ring import RingBuffer
from minicpmo_ros.media.stamps import DeviceTime, StampTracker
from minicpmo_ros.messages import EMPTY_SAMPLES, NS_PER_S

_RING_S = 2.0
# Sound servers report the latency of a stream that has just begun wrongly, by 20 ms and more, and
# take some seconds to find it. The stamps follow them this fast for so long, then as drift does.
_SETTLING_S = 5.0
_SETTLING_PPM = 10_000


class Capture:
    """Frames from a callback, through a ring, resampled to mono pieces with their time.

    Where the reader was so late that the ring refused blocks, the samples before the loss and
    those after it never share a piece: each piece is contiguous and rightly stamped.
    """

    def __init__(
        self,
        stream: StreamFormat,
        rate_hz: int,
        channel: int,
        clock: Callable[[], int],
        wake: threading.Event,
    ) -> None:
        """rate_hz: of the pieces; channel: which one is taken, -1 for the mean of all.

        wake is set when `wake_at` frames have been written.
        """
        self.ring = RingBuffer(round(stream.rate_hz * _RING_S), stream.channels)
        self.tracker = StampTracker(stream.rate_hz)
        self._settled_ppm = self.tracker.slew_ppm
        self.tracker.slew_ppm = _SETTLING_PPM
        self.device_time = DeviceTime(clock)
        self.xruns = 0
        self.blocks = 0
        self.wake_at = 0
        self._rate_hz = stream.rate_hz
        self._channel = channel
        self._wake = wake
        self._guess_ns = -round(stream.latency_s * NS_PER_S)
        self._captured = 0
        # Where in the ring a run of frames begins, and which captured frame that is.
        self._runs: deque[tuple[int, int]] = deque([(0, 0)])
        self._cut = False
        self._resampler = StreamResampler(stream.rate_hz, rate_hz)
        self._ready = EMPTY_SAMPLES
        self._given = 0
        self._flushed = False
        self._finished = False
        self._next_ns = 0
        self._run_jumps: tuple[tuple[int, int], int] | None = None

    @property
    def overflow_ms(self) -> float:
        """Sound lost because the reader was behind."""
        return self.ring.overflow * 1000.0 / self._rate_hz

    # The device's thread.

    def callback(self, data: Any, frames: int, time: Any, flags: Any) -> None:
        """PortAudio's callback: data int16 [frames, channels]."""
        adc_ns = self.device_time.ros_ns(time.inputBufferAdcTime, time.currentTime, self._guess_ns)
        if self._captured > _SETTLING_S * self._rate_hz:
            self.tracker.slew_ppm = self._settled_ppm
        self.tracker.observe(self._captured, adc_ns)
        self.blocks += 1
        if flags:
            self.xruns += 1
            self.tracker.doubt()
        ring = self.ring
        if self._cut and ring.capacity - ring.available >= frames:
            # Before the frames themselves, so that the reader finds it when it finds them.
            self._runs.append((ring.written, self._captured))
            self._cut = False
        if not ring.write(data):
            self._cut = True
        self._captured += frames
        if ring.written >= self.wake_at and not self._wake.is_set():
            self._wake.set()

    # The reader's thread.

    def finish(self) -> None:
        """The stream is over: what is left comes out, if need be as a shorter piece."""
        self._finished = True

    def piece(self, frames: int) -> tuple[int, np.ndarray] | None:
        """The next piece, (stamp in ns, int16 [frames]), shorter before a loss; None: not yet."""
        if not self.tracker.ready and not self._finished:
            return None
        while len(self._ready) < frames and not self._flushed:
            if not self._pull():
                break
        if len(self._ready) < frames and not self._flushed:
            self._ask(frames)
            return None
        piece, self._ready = self._ready[:frames], self._ready[frames:]
        if not len(piece):
            return self.piece(frames) if self._next_run() else None
        first = self._runs[0][1] + self._resampler.input_frame(self._given)
        self._given += len(piece)
        return self._contiguous(self.tracker.stamp(first), len(piece)), piece

    def _contiguous(self, stamp_ns: int, frames: int) -> int:
        """The stamp of the next piece, which follows the last one but for drift and jumps.

        The tracker moves with the device, the reader in its own time: what it moved while nobody
        read must not show as a step between two pieces.
        """
        length_ns = round(frames * NS_PER_S / self._resampler.out_rate_hz)
        same = self._run_jumps == (self._runs[0], self.tracker.jumps)
        if same:
            drift_ns = length_ns * self.tracker.slew_ppm // 1_000_000
            ahead_ns = stamp_ns - self._next_ns
            stamp_ns = self._next_ns + max(-drift_ns, min(drift_ns, ahead_ns))
        self._run_jumps = (self._runs[0], self.tracker.jumps)
        self._next_ns = stamp_ns + length_ns
        return stamp_ns

    def _pull(self) -> bool:
        """Resample what the ring has of this run; False where nothing more is there now."""
        end = self._runs[1][0] if len(self._runs) > 1 else None
        ready = (self.ring.written if end is None else end) - self.ring.taken
        if ready > 0:
            samples = mono(self.ring.read(ready), self._channel)
            self._append(self._resampler.process(samples))
            return True
        if end is None and not self._finished:
            return False
        self._append(self._resampler.process(EMPTY_SAMPLES, last=True))
        self._flushed = True
        return True

    def _append(self, samples: np.ndarray) -> None:
        self._ready = np.concatenate([self._ready, samples]) if len(self._ready) else samples

    def _next_run(self) -> bool:
        """Go on after a loss; False where there is nothing to go on with."""
        if len(self._runs) == 1:
            return False
        self._runs.popleft()
        self._flushed = False
        self._given = 0
        return True

    def _ask(self, frames: int) -> None:
        """Be woken when enough has come for a piece, and not for every block."""
        missing_s = (frames - len(self._ready)) / self._resampler.out_rate_hz
        self.wake_at = self.ring.taken + math.ceil(missing_s * self._resampler.in_rate_hz)

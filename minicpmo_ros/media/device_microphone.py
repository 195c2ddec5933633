"""The microphone of a sound device, through PortAudio."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from minicpmo_ros.media.capture import Capture
from minicpmo_ros.media.device_stream import Callback, DeviceStream, StreamFormat
from minicpmo_ros.media.microphone import MicConfig, Microphone, MicStatus
from minicpmo_ros.messages import NS_PER_MS, AudioChunk

_NAP_S = 0.05


class DeviceMicrophone(Microphone):
    """Mono chunks of an input device, stamped from the time of its ADC.

    Consecutive chunks are contiguous but for the drift of the device's clock (at most 200 ppm, and
    1 % in the first 5 s, in which sound servers find out what their latency is).
    Where sound is lost, the stamps jump by what is missing. An unplugged device is looked for every
    second, and the stream goes on when it is back; until then `status.problem` says what is wrong
    and `read` gives nothing.
    """

    def __init__(self, config: MicConfig, clock: Callable[[], int]) -> None:
        super().__init__(config, clock)
        self._wake = threading.Event()
        # One for each opening; all but the last hold what was heard before the device was lost.
        self._captures: deque[Capture] = deque()
        self._closed = True
        self._past = _Counts()
        self._stream = DeviceStream(
            "input",
            config.device,
            [config.device_rate_hz or config.rate_hz],
            config.channels,
            config.block_ms,
            config.latency_ms,
            self._start,
            self._end,
        )

    def open(self) -> None:
        self._captures.clear()
        self._past = _Counts()
        self._closed = False
        self._stream.open()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self._stream.close()

    def read(self, timeout_s: float) -> AudioChunk | None:
        left_s = timeout_s
        while not self._closed:
            self._wake.clear()
            chunk = self._next()
            if chunk is not None:
                return chunk
            if left_s <= 0.0:
                return None
            capture = self._captures[0] if self._captures else None
            if capture is not None and capture.ring.written >= capture.wake_at > 0:
                continue  # it came between looking and going to sleep
            nap_s = min(left_s, _NAP_S)
            left_s -= nap_s
            self._wake.wait(nap_s)
        return None

    @property
    def status(self) -> MicStatus:
        stream = self._stream.status
        counts = self._past
        for capture in list(self._captures):
            counts = counts.plus(capture)
        problem = stream.reason
        if not problem and counts.guessed > 10 and 2 * counts.guessed > counts.blocks:
            problem = (
                "the device reports no usable capture times: stamps are those of the callback "
                "minus the latency that it claims; see latency_correction_ms"
            )
        used = stream.format
        return MicStatus(
            self.config.source,
            problem,
            stream.state.value,
            used.device.name if used else "",
            used.rate_hz if used else 0,
            used.channels if used else 0,
            used.latency_s * 1000 if used else 0.0,
            self._sequence,
            counts.overflow_ms,
            counts.xruns,
            counts.jumps,
            counts.jumped_ns / NS_PER_MS,
            stream.reopenings,
            counts.guessed,
        )

    def _start(self, stream: StreamFormat) -> Callback:
        capture = Capture(stream, self.config.rate_hz, self.config.channel, self._clock, self._wake)
        self._captures.append(capture)
        return capture.callback

    def _end(self) -> None:
        """The device is lost, and no more comes of what it was opened for.

        Called by the thread that also opens it again: one that is just being opened is not ended.
        """
        for capture in list(self._captures):
            capture.finish()

    def _next(self) -> AudioChunk | None:
        while self._captures:
            capture = self._captures[0]
            newer = len(self._captures) > 1
            if newer:
                capture.finish()
            piece = capture.piece(self.config.chunk_frames) if capture.blocks else None
            if piece is not None:
                return self._chunk(*piece)
            if not newer:
                return None
            self._past = self._past.plus(self._captures.popleft())
        return None


class _Counts:
    """Sums over all openings of the device."""

    def __init__(self) -> None:
        self.blocks = 0
        self.overflow_ms = 0.0
        self.xruns = 0
        self.jumps = 0
        self.jumped_ns = 0
        self.guessed = 0

    def plus(self, capture: Capture) -> _Counts:
        total = _Counts()
        total.blocks = self.blocks + capture.blocks
        total.overflow_ms = self.overflow_ms + capture.overflow_ms
        total.xruns = self.xruns + capture.xruns
        total.jumps = self.jumps + capture.tracker.jumps
        total.jumped_ns = self.jumped_ns + capture.tracker.jumped_ns
        total.guessed = self.guessed + capture.device_time.fallbacks
        return total

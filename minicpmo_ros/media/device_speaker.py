"""The speaker of a sound device, through PortAudio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minicpmo_ros.media.device_stream import Callback, DeviceStream, StreamFormat
from minicpmo_ros.media.playback import PlayQueue
from minicpmo_ros.media.resample import StreamResampler
from minicpmo_ros.media.ring import RingBuffer
from minicpmo_ros.media.speaker import Speaker, SpeakerConfig, SpeakerStatus
from minicpmo_ros.media.stamps import DeviceTime, StampTracker
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, SPEECH_RATE_HZ

# Blocks after which the DAC times of a stream that has just begun can be believed.
_SETTLING = 25


class Outlet:
    """Moves samples from the queue to one opened output stream, with the time of its DAC."""

    def __init__(
        self,
        stream: StreamFormat,
        queue: PlayQueue,
        clock: Callable[[], int],
        correction_ns: int,
    ) -> None:
        self.device_time = DeviceTime(clock)
        self.tracker = StampTracker(stream.rate_hz, settling=_SETTLING)
        self.xruns = 0
        self.blocks = 0
        self._queue = queue
        self._correction_ns = correction_ns
        self._guess_ns = round(stream.latency_s * NS_PER_S)
        self._sent = 0
        self._taken = 0
        self._resampler: StreamResampler | None = None
        if stream.rate_hz != SPEECH_RATE_HZ:
            self._resampler = StreamResampler(SPEECH_RATE_HZ, stream.rate_hz)
            # A block may be short of the device's, or up to 30 ms may wait in the filter.
            self._take = np.zeros(SPEECH_RATE_HZ // 100, dtype=np.int16)
            self._ring = RingBuffer(stream.rate_hz // 2 + 2 * stream.block)

    def callback(self, data: Any, frames: int, time: Any, flags: Any) -> None:
        """PortAudio's callback: data int16 [frames, channels] to be filled."""
        dac_ns = self.device_time.ros_ns(time.outputBufferDacTime, time.currentTime, self._guess_ns)
        self.tracker.observe(self._sent, dac_ns)
        self.blocks += 1
        if flags:
            self.xruns += 1
            self.tracker.doubt()
        if self._resampler is None:
            stamp_ns = self.tracker.stamp(self._sent) + self._correction_ns
            self._queue.take(frames, stamp_ns, data[:, 0])
        else:
            self._convert(self._resampler, frames)
            self._ring.fill(data[:, :1])
        if data.shape[1] > 1:
            data[:, 1:] = data[:, :1]
        self._sent += frames

    def _convert(self, resampler: StreamResampler, frames: int) -> None:
        """Take from the queue, 10 ms at a time, until the device's block is full.

        The filter holds 10 ms, so that an interruption is heard that much later; they are in the
        account, since they do sound.
        """
        while self._ring.available < frames:
            sounds_at = resampler.output_frame(self._taken)
            stamp_ns = self.tracker.stamp(sounds_at) + self._correction_ns
            self._queue.take(len(self._take), stamp_ns, self._take)
            self._taken += len(self._take)
            self._ring.write(resampler.process(self._take)[:, np.newaxis])


class DeviceSpeaker(Speaker):
    """Plays the queue on an output device.

    While the device is gone whatever is pushed is reported as interrupted, since nobody hears it:
    speech that is late by the time that it takes to plug a speaker in again is worse than none.
    """

    def __init__(self, config: SpeakerConfig, queue: PlayQueue, clock: Callable[[], int]) -> None:
        super().__init__(config, queue)
        self._clock = clock
        self._outlet: Outlet | None = None
        self._xruns = 0
        self._jumps = 0
        self._jumped_ns = 0
        self._guessed = 0
        self._stream = DeviceStream(
            "output",
            config.device,
            [config.device_rate_hz or SPEECH_RATE_HZ],
            1,
            config.block_ms,
            config.latency_ms,
            self._start,
            queue.clear,
        )

    def open(self) -> None:
        self._stream.open()

    def close(self) -> None:
        """Silent at once: what the device holds is thrown away, what waits is interrupted."""
        self._stream.close()
        self.queue.clear()

    @property
    def status(self) -> SpeakerStatus:
        stream = self._stream.status
        used = stream.format
        stats = self.queue.stats
        outlet = self._outlet
        tracker = outlet.tracker if outlet else None
        guessed = self._guessed + (outlet.device_time.fallbacks if outlet else 0)
        problem = stream.reason
        if not problem and outlet and 2 * outlet.device_time.fallbacks > outlet.blocks > 10:
            problem = (
                "the device reports no usable playback times: stamps are those of the callback "
                "plus the latency that it claims; see latency_correction_ms"
            )
        return SpeakerStatus(
            self.config.sink,
            problem,
            stream.state.value,
            used.device.name if used else "",
            used.rate_hz if used else 0,
            used.channels if used else 0,
            used.latency_s * 1000 if used else 0.0,
            self.queue.queued_samples,
            self._xruns + (outlet.xruns if outlet else 0),
            self._jumps + (tracker.jumps if tracker else 0),
            (self._jumped_ns + (tracker.jumped_ns if tracker else 0)) / NS_PER_MS,
            stream.reopenings,
            guessed,
            stats.refused,
            stats.missing,
            stats.abandoned,
            stats.underruns,
            stats.concealed_samples,
            stats.caught_up_samples,
        )

    def _start(self, stream: StreamFormat) -> Callback:
        past = self._outlet
        if past is not None:
            self._xruns += past.xruns
            self._jumps += past.tracker.jumps
            self._jumped_ns += past.tracker.jumped_ns
            self._guessed += past.device_time.fallbacks
        self._outlet = Outlet(stream, self.queue, self._clock, self.config.correction_ns)
        return self._outlet.callback

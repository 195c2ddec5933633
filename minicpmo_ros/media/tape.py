"""What the play queue is made of beside its turns: DAC time, fades, and a tape of what sounded."""

from __future__ import annotations

from collections import deque

import numpy as np

from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, AudioChunk


class DacTime:
    """ROS time of each frame that leaves for the DAC.

    Frames are counted and not measured: while the device's stamps agree with the count to half a
    sample, they change nothing, so that block sizes and rounding do not show.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._anchor: tuple[int, int] | None = None

    @property
    def known(self) -> bool:
        return self._anchor is not None

    def anchor(self, frame: int, dac_ns: int) -> bool:
        """The device says when a frame sounds. True where that breaks the count by over 1 ms."""
        off_ns = dac_ns - self.at(frame) if self._anchor else 0
        if self._anchor is None or 2 * abs(off_ns) * self._rate_hz > NS_PER_S:
            self._anchor = (frame, dac_ns)
        return abs(off_ns) > NS_PER_MS

    def at(self, frame: int) -> int:
        """ROS time in ns at which a frame sounds."""
        assert self._anchor is not None
        start, start_ns = self._anchor
        return start_ns + ((frame - start) * NS_PER_S + self._rate_hz // 2) // self._rate_hz

    def frame_at(self, stamp_ns: int) -> int:
        """The frame that sounds nearest to a stamp."""
        assert self._anchor is not None
        start, start_ns = self._anchor
        return start + ((stamp_ns - start_ns) * self._rate_hz + NS_PER_S // 2) // NS_PER_S


class Fade:
    """Takes the click out of sound that stops or resumes in the middle.

    Where sound stops, its last sample decays to zero over a few ms: that needs no look at what was
    to come, which may not be there. Where it resumes, it is faded in.
    """

    def __init__(self, samples: int) -> None:
        self._up = (np.arange(1, samples + 1) / (samples + 1)).astype(np.float32)
        self._down = self._up[::-1].copy()
        self._level = 0
        self._fading_in = 0
        self.left = 0
        """Samples of the decay that are still to come; 0 where the sound ended in silence."""

    def sound(self, block: np.ndarray, samples: np.ndarray, resumed: bool) -> None:
        """Put int16 samples into a block of the same length; resumed: they follow silence."""
        block[:] = samples
        if resumed:
            self._fading_in = len(self._up)
        if self._fading_in:
            count = min(self._fading_in, len(block))
            start = len(self._up) - self._fading_in
            np.multiply(
                block[:count], self._up[start : start + count], out=block[:count], casting="unsafe"
            )
            self._fading_in -= count
        self._level = int(block[-1])
        self.left = len(self._down) if self._level else 0

    def forget(self) -> None:
        """What sounded last is long over: no decay follows it."""
        self.left = 0

    def silence(self, block: np.ndarray) -> None:
        """Fill a block with silence, or with the decay that begins it."""
        self._fading_in = 0
        block[:] = 0
        count = min(self.left, len(block))
        if count:
            start = len(self._down) - self.left
            block[:count] = self._level * self._down[start : start + count]
            self.left -= count


class PlayedTape:
    """Cuts what left for the DAC into chunks of 20 ms, while it sounds.

    The last chunk of a stretch of sound is filled up with the silence that followed it.
    """

    def __init__(self, rate_hz: int, kept: int, frame_id: str = "") -> None:
        self._rate_hz = rate_hz
        self._frame_id = frame_id
        self._samples = np.zeros(rate_hz // 50, dtype=np.int16)
        self._filled = 0
        self._stamp_ns = 0
        self._sequence = 0
        self.chunks: deque[AudioChunk] = deque(maxlen=kept)

    @property
    def empty(self) -> bool:
        """No chunk is half full."""
        return self._filled == 0

    def add(self, block: np.ndarray, sounding: bool, frame: int, time: DacTime) -> None:
        """A block that begins with `frame` leaves for the DAC; sounding: it is part of a turn."""
        done = 0
        while done < len(block) and (sounding or self._filled):
            if not self._filled:
                self._stamp_ns = time.at(frame + done)
            count = min(len(block) - done, len(self._samples) - self._filled)
            self._samples[self._filled : self._filled + count] = block[done : done + count]
            self._filled += count
            done += count
            if self._filled == len(self._samples):
                self.flush()

    def flush(self) -> None:
        """Close the chunk, though it may not be full: what follows is not contiguous with it."""
        if self._filled:
            self.chunks.append(
                AudioChunk(
                    self._stamp_ns,
                    self._samples[: self._filled].copy(),
                    self._rate_hz,
                    self._sequence,
                    frame_id=self._frame_id,
                )
            )
            self._sequence += 1
            self._filled = 0

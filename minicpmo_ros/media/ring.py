"""A ring of sound frames between a real-time audio callback and the thread that serves it."""

from __future__ import annotations

import numpy as np

from minicpmo_ros.errors import ConfigError


class RingBuffer:
    """Frames of int16 [channels] in a buffer of fixed size: one thread writes, another reads.

    Nothing is allocated after construction and nobody ever waits: each side owns one counter that
    only grows and only reads the other's. A block that does not fit is refused whole (the reader's
    part of the buffer is never touched), so that what was lost is a run of whole blocks.
    """

    def __init__(self, capacity: int, channels: int = 1) -> None:
        """capacity in frames. Raises ConfigError unless both are at least 1."""
        if capacity < 1 or channels < 1:
            raise ConfigError(
                f"ring buffer of {capacity} frames, {channels} channels: both must be at least 1"
            )
        self._frames = np.zeros((capacity, channels), dtype=np.int16)
        self._written = 0
        self._taken = 0
        self._overflow = 0
        self._underflow = 0

    @property
    def capacity(self) -> int:
        return len(self._frames)

    @property
    def channels(self) -> int:
        return int(self._frames.shape[1])

    @property
    def written(self) -> int:
        """Frames accepted since construction."""
        return self._written

    @property
    def taken(self) -> int:
        """Frames read since construction."""
        return self._taken

    @property
    def available(self) -> int:
        """Frames that can be read now."""
        return self._written - self._taken

    @property
    def overflow(self) -> int:
        """Frames refused because the reader was behind."""
        return self._overflow

    @property
    def underflow(self) -> int:
        """Frames that a `fill` had to leave silent because the writer was behind."""
        return self._underflow

    def write(self, block: np.ndarray) -> bool:
        """Append int16 [frames, channels]; False, and counted, where it does not fit."""
        frames = len(block)
        capacity = len(self._frames)
        if frames > capacity - (self._written - self._taken):
            self._overflow += frames
            return False
        start = self._written % capacity
        first = min(frames, capacity - start)
        self._frames[start : start + first] = block[:first]
        if first < frames:
            self._frames[: frames - first] = block[first:]
        # Last, so that the reader never sees frames that are not there yet.
        self._written += frames
        return True

    def read(self, frames: int) -> np.ndarray:
        """Take up to `frames` frames, as many as there are: a copy, int16 [n, channels]."""
        taken = np.empty((min(frames, self.available), self.channels), dtype=np.int16)
        self._copy(taken)
        return taken

    def fill(self, block: np.ndarray) -> int:
        """Fill int16 [frames, channels] in place, silence where frames are missing (counted).

        Returns how many frames came from the ring.
        """
        ready = min(len(block), self.available)
        self._copy(block[:ready])
        if ready < len(block):
            block[ready:] = 0
            self._underflow += len(block) - ready
        return ready

    def _copy(self, target: np.ndarray) -> None:
        frames = len(target)
        start = self._taken % len(self._frames)
        first = min(frames, len(self._frames) - start)
        target[:first] = self._frames[start : start + first]
        if first < frames:
            target[first:] = self._frames[: frames - first]
        self._taken += frames

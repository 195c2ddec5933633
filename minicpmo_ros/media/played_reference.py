"""What the speaker played, laid on one time grid: the echo canceller's reference."""

from __future__ import annotations

from collections import deque

import numpy as np

from minicpmo_ros.media.resample import StreamResampler
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, AudioChunk

# Stamps of one stream scatter by milliseconds around the times of its samples. Within this they
# count as contiguous; beyond it, samples were lost or the clock has moved.
TOLERANCE_NS = 5 * NS_PER_MS
# Sound further back than the longest echo that is looked for cannot matter any more.
_TAIL_NS = NS_PER_S
# More than this is never held: played sound keeps coming where no microphone does.
_HELD_PIECES = 1_500


class PlayedReference:
    """Played samples, int16 mono, on a grid of rate_hz whose index 0 is the zero of ROS time."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.end_ns: int | None = None
        self._pieces: deque[tuple[int, np.ndarray]] = deque(maxlen=_HELD_PIECES)
        self._end_index = 0
        self._resampler: StreamResampler | None = None
        self._resampled_from = 0

    def clear(self) -> None:
        self.end_ns = None
        self._pieces.clear()
        self._end_index = 0
        self._resampler = None

    def index(self, stamp_ns: int) -> int:
        return (stamp_ns * self.rate_hz + NS_PER_S // 2) // NS_PER_S

    def near(self, index: int, other: int, tolerance_ns: int = TOLERANCE_NS) -> bool:
        """Two places closer than stamps can tell."""
        return abs(index - other) <= tolerance_ns * self.rate_hz // NS_PER_S

    def add(self, chunk: AudioChunk) -> None:
        """Place a chunk of any rate and number of channels by its stamp.

        At another rate than this grid's, up to 30 ms stay in the converter until more follows.
        """
        data = chunk.data if chunk.data.ndim == 1 else _mono(chunk.data)
        follows = self.end_ns is not None and abs(chunk.stamp_ns - self.end_ns) <= TOLERANCE_NS
        if chunk.sample_rate != self.rate_hz:
            data, index = self._resampled(chunk, data, follows)
        else:
            self._resampler = None
            index = self._end_index if follows else self.index(chunk.stamp_ns)
            # Contiguous samples may drift off their stamps only so far.
            if not self.near(index, self.index(chunk.stamp_ns)):
                index = self.index(chunk.stamp_ns)
        if len(data):
            self._pieces.append((index, data))
        self._end_index = index + len(data)
        self.end_ns = chunk.end_ns

    def _resampled(
        self, chunk: AudioChunk, data: np.ndarray, follows: bool
    ) -> tuple[np.ndarray, int]:
        resampler = self._resampler
        if resampler is None or resampler.in_rate_hz != chunk.sample_rate or not follows:
            resampler = StreamResampler(chunk.sample_rate, self.rate_hz)
            self._resampled_from = self.index(chunk.stamp_ns - round(resampler.delay_s * NS_PER_S))
            self._resampler = resampler
        index = self._resampled_from + resampler.frames_out
        return resampler.process(data), index

    def read(self, index: int, count: int) -> np.ndarray:
        """int16 [count] from index on; of pieces that overlap the newer one counts."""
        data = np.zeros(count, dtype=np.int16)
        for start, piece in self._pieces:
            begin, end = max(start, index), min(start + len(piece), index + count)
            if begin < end:
                data[begin - index : end - index] = piece[begin - start : end - start]
        return data

    def sounds(self, begin: int, end: int) -> bool:
        """Something was played in [begin, end)."""
        return any(start < end and start + len(piece) > begin for start, piece in self._pieces)

    def forget(self, index: int) -> None:
        """Drop what ended long before index."""
        oldest = index - _TAIL_NS * self.rate_hz // NS_PER_S
        while self._pieces and self._pieces[0][0] + len(self._pieces[0][1]) < oldest:
            self._pieces.popleft()


def _mono(data: np.ndarray) -> np.ndarray:
    return np.rint(data.mean(axis=1)).astype(np.int16)

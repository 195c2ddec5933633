"""One turn of the robot's speech on its way through the play queue."""

from __future__ import annotations

from collections import deque

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.words import SpokenText, join
from minicpmo_ros.messages import EMPTY_SAMPLES, SPEECH_RATE_HZ, SpeechChunk

Key = tuple[int, int]
"""(epoch, turn)."""

# A pause is heard in blocks of 10 ms, all of whose samples are below -50 dBFS. 60 ms of it stay.
_BLOCK = SPEECH_RATE_HZ // 100
_QUIET = 104
_KEPT_BLOCKS = 6
# What must wait in the queue when more comes, so that the next gap is not made here.
MARGIN_SAMPLES = SPEECH_RATE_HZ // 10
# Whoever was late will be so again: for so long the delay is kept that this needs.
RECENT_SAMPLES = SPEECH_RATE_HZ * 5


class Piece:
    """A chunk of speech that waits or sounds: its samples, int16 [n], and its text."""

    def __init__(self, chunk: SpeechChunk) -> None:
        """Raises InputError where the chunk is not int16 mono at 24 kHz."""
        _check(chunk)
        # A copy: the samples may belong to a message whose memory is used again.
        self.samples = np.array(chunk.data, dtype=np.int16)
        self.text = SpokenText(chunk.text, chunk.words, len(self.samples))
        self.spare = _spare(self.samples)
        self.sounded = 0

    @property
    def left(self) -> int:
        return len(self.samples) - self.sounded

    @property
    def next(self) -> np.ndarray:
        """The samples up to the next place where some could be left out."""
        stop = next((at for at, _ in self.spare if at > self.sounded), len(self.samples))
        return self.samples[self.sounded : stop]


def _spare(samples: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Where pauses begin that can be shortened, 30 ms into them, and by how many samples."""
    count = len(samples) // _BLOCK
    blocks = np.abs(samples[: count * _BLOCK].astype(np.int32)).reshape(count, _BLOCK)
    quiet = np.concatenate(([0], (blocks.max(axis=1) <= _QUIET).astype(np.int8), [0]))
    borders = np.flatnonzero(np.diff(quiet)).reshape(-1, 2)
    half = _KEPT_BLOCKS // 2
    return tuple(
        (int(start + half) * _BLOCK, int(stop - start - _KEPT_BLOCKS) * _BLOCK)
        for start, stop in borders
        if stop - start > _KEPT_BLOCKS
    )


class Turn:
    """Pieces of speech that sound as one, and the account of what has sounded."""

    def __init__(self, chunk: SpeechChunk) -> None:
        self.epoch = chunk.epoch
        self.turn = chunk.turn
        self.stamp_ns = chunk.stamp_ns
        self.next_sequence = 0
        self.ended = False
        """The chunk marked as last has come."""
        self.started = False
        self.end_frame = 0
        """Frame of the DAC after the last sample that has sounded."""
        self.sounded = 0
        self.concealed = 0
        """Silent samples put in between samples of this turn, less those left out of its pauses: by
        so much it is late."""
        self.gap = 0
        """Silent samples since its last one: concealment if more comes, nothing if not."""
        self.queued = 0
        self._pieces: deque[Piece] = deque()
        self._lateness: deque[tuple[int, int]] = deque()
        """When something came, and by how much too late for a turn without concealment (negative:
        too early). Of what came before something later still, nothing is kept."""
        self._heard = ""

    @property
    def key(self) -> Key:
        return (self.epoch, self.turn)

    @property
    def position(self) -> int:
        """Samples since the turn began to sound, silence within it included."""
        return self.sounded + self.concealed + self.gap

    def add(self, piece: Piece, chunk: SpeechChunk) -> None:
        if self.started:
            self._note_lateness()
        self.next_sequence = chunk.sequence + 1
        self.ended = self.ended or chunk.last
        self.queued += piece.left
        self._pieces.append(piece)

    def front(self) -> np.ndarray:
        """The samples of the piece that sounds now, int16 [n]; none where the turn has run dry."""
        while self._pieces and not self._pieces[0].left:
            self._heard = join(self._heard, self._pieces.popleft().text.whole)
        if not self._pieces:
            return EMPTY_SAMPLES
        return self._pieces[0].next

    def catch_up(self) -> int:
        """Leave out as much of a pause that sounds now as the turn is late; how many samples that
        was. They count as sounded. While more is to come, it stays as late as it has to be for what
        comes as late as the latest of the last 5 s."""
        if self.concealed <= 0 or self.gap or not self._pieces:
            return 0
        piece = self._pieces[0]
        length = next((length for at, length in piece.spare if at == piece.sounded), 0)
        if not self.ended:
            length = min(length, self.concealed - self._latest() - MARGIN_SAMPLES)
        length = min(length, self.concealed)
        if length <= 0:
            return 0
        self.concealed -= length
        self.sounded += length
        self.queued -= length
        piece.sounded += length
        return length

    def _note_lateness(self) -> None:
        late = self.concealed + self.gap - self.queued
        while self._lateness and self._lateness[-1][1] <= late:
            self._lateness.pop()
        self._lateness.append((self.position, late))

    def _latest(self) -> int:
        """By how many samples the latest of the last 5 s was late, or else what came last. Where
        there was concealment, something has come behind it."""
        recent = self.position - RECENT_SAMPLES
        while len(self._lateness) > 1 and self._lateness[0][0] < recent:
            self._lateness.popleft()
        return self._lateness[0][1]

    def advance(self, samples: int) -> None:
        """So many samples of the front piece have sounded."""
        self.concealed += self.gap
        self.gap = 0
        self.sounded += samples
        self.queued -= samples
        self._pieces[0].sounded += samples

    def heard(self) -> str:
        """The words that have sounded to their end."""
        text = self._heard
        for piece in self._pieces:
            text = join(text, piece.text.heard(piece.sounded))
            if piece.left:
                break
        return text


def _check(chunk: SpeechChunk) -> None:
    data = chunk.data
    if data.ndim != 1 or data.dtype != np.int16:
        raise InputError(
            f"speech chunk {chunk.sequence} of turn {chunk.turn} has samples of type {data.dtype} "
            f"and shape {data.shape}: must be int16 [samples], mono"
        )
    if chunk.sample_rate != SPEECH_RATE_HZ:
        raise InputError(
            f"speech chunk {chunk.sequence} of turn {chunk.turn} has {chunk.sample_rate} Hz: "
            f"must be {SPEECH_RATE_HZ} Hz"
        )

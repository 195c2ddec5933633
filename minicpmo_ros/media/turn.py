"""One turn of the robot's speech on its way through the play queue."""

from __future__ import annotations

from collections import deque

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.words import SpokenText, join
from minicpmo_ros.messages import EMPTY_SAMPLES, SPEECH_RATE_HZ, SpeechChunk

Key = tuple[int, int]
"""(epoch, turn)."""


class Piece:
    """A chunk of speech that waits or sounds: its samples, int16 [n], and its text."""

    def __init__(self, chunk: SpeechChunk) -> None:
        """Raises InputError where the chunk is not int16 mono at 24 kHz."""
        _check(chunk)
        # A copy: the samples may belong to a message whose memory is used again.
        self.samples = np.array(chunk.data, dtype=np.int16)
        self.text = SpokenText(chunk.text, chunk.words, len(self.samples))
        self.sounded = 0

    @property
    def left(self) -> int:
        return len(self.samples) - self.sounded


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
        """Silent samples between samples of this turn."""
        self.gap = 0
        """Silent samples since its last one: concealment if more comes, nothing if not."""
        self.queued = 0
        self._pieces: deque[Piece] = deque()
        self._heard = ""

    @property
    def key(self) -> Key:
        return (self.epoch, self.turn)

    @property
    def position(self) -> int:
        """Samples since the turn began to sound, silence within it included."""
        return self.sounded + self.concealed + self.gap

    def add(self, piece: Piece, chunk: SpeechChunk) -> None:
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
        piece = self._pieces[0]
        return piece.samples[piece.sounded :]

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

"""From codes to sound: which codes the vocoder is given at a time.

The vocoder needs to see three codes beyond those that it turns into sound. What it is given at once
is a chunk, and a chunk is heard the sooner the smaller it is; so a turn begins with small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import ConfigError

SILENCE = 4218
"""The code of silence."""
CODES_PER_SECOND = 25
LOOK_AHEAD = 3
RATE_HZ = 24_000
SAMPLES_PER_CODE = RATE_HZ // CODES_PER_SECOND
CHUNKS = (8, 17, 25)
"""Codes in the first chunks of a turn; the last holds for all that follow."""
LARGEST_CHUNK = 50
# Fewer than these, with what they are to be seen with, are kept for the next time.
FEWEST = 5

SoundArray = NDArray[np.float32]


class Vocoder(Protocol):
    """Codes to samples, with a memory of the turn."""

    def stream(self, codes: Sequence[int], last: bool) -> SoundArray:
        """The next samples of the turn, float32 at 24 kHz.

        Args:
            codes: the three that it has only looked at, save at the start of a turn, and those that
                follow. It makes sound of all but the last three, of which it may hold some back.
            last: nothing follows in this turn: it makes sound of all, and holds nothing back.

        Raises:
            InputError: a code is none.
            NumericsError: the network gave NaN.
        """

    def reset(self) -> None:
        """A new turn begins."""


class CodeStream:
    """The codes of one turn on their way to a vocoder.

    Args:
        chunks: how many codes the first chunks of a turn turn into sound, the last of them again
            and again. A unit's last chunk takes what there is.
        reference_compat: as the published code does: a turn begins with three codes of silence,
            chunks have 25 codes, and a second of sound that is not the turn's last is filled up
            with silence in front.

    Raises:
        ConfigError: a chunk is smaller than 5 or larger than 50, or there is none.
    """

    def __init__(
        self, vocoder: Vocoder, chunks: Sequence[int] = CHUNKS, *, reference_compat: bool = False
    ) -> None:
        self.vocoder = vocoder
        self.chunks = (CODES_PER_SECOND,) if reference_compat else checked_chunks(chunks)
        self._compat = reference_compat
        self.restart()

    def restart(self) -> None:
        """Drop what waits: a new turn begins."""
        self.vocoder.reset()
        self._waiting = [SILENCE] * LOOK_AHEAD if self._compat else []
        self._given = 0

    def feed(self, codes: Sequence[int]) -> SoundArray:
        """Codes that are next, any number of them: the sound of the chunks that they complete."""
        self._waiting += codes
        sound: list[SoundArray] = []
        while len(self._waiting) >= self._next + LOOK_AHEAD:
            sound.append(self._chunk(self._next))
        return _joined(sound)

    def flush(self, *, last: bool) -> SoundArray:
        """The unit is over: sound of what waits, as far as it can be seen with what follows it.
        `last`: the turn is over, all of it sounds, and a new turn begins.
        """
        sound: list[SoundArray] = []
        if last:
            if self._waiting:
                sound.append(self.vocoder.stream(self._waiting, True))
            self.restart()
        elif len(self._waiting) >= LOOK_AHEAD + FEWEST:
            sound.append(self._chunk(len(self._waiting) - LOOK_AHEAD))
        return _joined(sound)

    def push(self, codes: Sequence[int], *, last: bool) -> SoundArray:
        """All codes of a unit at once."""
        whole = _joined([self.feed(codes), self.flush(last=last)])
        missing = RATE_HZ - len(whole)
        if self._compat and len(whole) and not last and missing > 0:
            whole = np.concatenate((np.zeros(missing, np.float32), whole))
        return whole

    @property
    def _next(self) -> int:
        return self.chunks[min(self._given, len(self.chunks) - 1)]

    def _chunk(self, codes: int) -> SoundArray:
        given = self._waiting[: codes + LOOK_AHEAD]
        del self._waiting[:codes]
        self._given += 1
        return self.vocoder.stream(given, False)


def checked_chunks(chunks: Sequence[int]) -> tuple[int, ...]:
    """The same chunks; raises ConfigError, see `CodeStream`."""
    if not chunks or not all(FEWEST <= chunk <= LARGEST_CHUNK for chunk in chunks):
        raise ConfigError(
            f"speech_chunks: {' '.join(map(str, chunks)) or 'none'}: give one or more numbers of"
            f" codes, each {FEWEST} to {LARGEST_CHUNK}, such as {' '.join(map(str, CHUNKS))}"
        )
    return tuple(chunks)


def _joined(sound: Sequence[SoundArray]) -> SoundArray:
    return np.concatenate(sound) if sound else np.zeros(0, np.float32)

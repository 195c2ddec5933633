"""From codes to sound: which codes the vocoder is given at a time.

It needs to see three codes beyond those that it turns into sound, and begins with three of silence;
so the first 25 codes of a turn already give a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SILENCE = 4218
"""The code of silence."""
CODES_PER_SECOND = 25
LOOK_AHEAD = 3
RATE_HZ = 24_000
# Fewer than these, with what they are to be seen with, are kept for the next time.
FEWEST = 5


class Vocoder(Protocol):
    """Codes to samples, with a memory of the turn."""

    def stream(self, codes: Sequence[int], last: bool) -> NDArray[np.float32]:
        """float32 samples at 24 kHz of these codes but the last three, or of all if it is the
        `last` time in this turn."""

    def reset(self) -> None:
        """A new turn begins."""


class CodeStream:
    """The codes of one turn on their way to a vocoder."""

    def __init__(self, vocoder: Vocoder) -> None:
        self.vocoder = vocoder
        self.restart()

    def restart(self) -> None:
        """Drop what waits: a new turn begins."""
        self.vocoder.reset()
        self._waiting = [SILENCE] * LOOK_AHEAD

    def push(self, codes: Sequence[int], *, last: bool) -> NDArray[np.float32]:
        """The sound that these codes complete; `last` flushes all and begins a new turn.

        A second of a turn that goes on is never shorter than one: silence is put before it.
        """
        waiting = [*self._waiting, *codes]
        sound: list[NDArray[np.float32]] = []
        while len(waiting) >= LOOK_AHEAD + FEWEST:
            given = waiting[: CODES_PER_SECOND + LOOK_AHEAD]
            sound.append(self.vocoder.stream(given, False))
            waiting = waiting[len(given) - LOOK_AHEAD :]
        if last and waiting:
            sound.append(self.vocoder.stream(waiting, True))
        self._waiting = waiting
        if last:
            self.restart()
        whole = np.concatenate(sound) if sound else np.zeros(0, np.float32)
        missing = RATE_HZ - len(whole)
        if sound and not last and missing > 0:
            whole = np.concatenate((np.zeros(missing, np.float32), whole))
        return whole

"""What the model says as speech: in its own voice, or its text in whole words by a synthesiser."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from functools import reduce

import numpy as np

from minicpmo_ros.brains.api import Speech
from minicpmo_ros.brains.reflex import Synthesiser, say
from minicpmo_ros.duplex.mouth import Saying
from minicpmo_ros.errors import BrainError
from minicpmo_ros.media.words import join
from minicpmo_ros.messages import SPEECH_RATE_HZ

FULL_SCALE = 32_767

# Up to here a word cannot go on: a space, or a sign of a script without spaces (Chinese, Japanese).
_END = re.compile(r"[\s\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
# Something that can be pronounced.
_SOUND = re.compile(r"\w")


def as_speech(saying: Saying) -> Generator[Speech, None, None]:
    """The pieces of what is said, made as they are asked for; BrainError where the rest is lost."""
    try:
        for piece in saying.pieces:
            data = np.rint(np.clip(piece.sound, -1.0, 1.0) * FULL_SCALE).astype(np.int16)
            text = reduce(join, (word.text for word in piece.words), "")
            yield Speech(data, text, piece.words, SPEECH_RATE_HZ)
    finally:
        saying.pieces.close()
    if saying.problem:
        raise BrainError(saying.problem)


class SpokenText:
    """Speaks what of the text is whole words, and keeps the rest for the next piece."""

    def __init__(self, synthesiser: Synthesiser | None) -> None:
        self._synthesiser = synthesiser
        self._waiting = ""

    def push(self, text: str, *, last: bool) -> tuple[Sequence[Speech], str]:
        """Speech of the words that this piece completes, and why there is none, if so."""
        text = self._waiting + text
        ends = [found.end() for found in _END.finditer(text)]
        whole = len(text) if last else (ends[-1] if ends else 0)
        ready, self._waiting = text[:whole], text[whole:]
        if not _SOUND.search(ready):
            if not last:
                self._waiting = ready + self._waiting
            return (), ""
        return say(self._synthesiser, ready)

    def drop(self) -> None:
        """Forget what waits: the turn was cut off."""
        self._waiting = ""

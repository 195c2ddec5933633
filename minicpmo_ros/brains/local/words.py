"""Text that comes in pieces of any length, spoken in whole words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from minicpmo_ros.brains.api import Speech
from minicpmo_ros.brains.reflex import Synthesiser, say

# Up to here a word cannot go on: a space, or a sign of a script without spaces (Chinese, Japanese).
_END = re.compile(r"[\s\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
# Something that can be pronounced.
_SOUND = re.compile(r"\w")


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

"""Where in a turn's sound its words lie.

The codes of a unit say the text of that unit, so at the borders of units the place of a word is
known to the sample. Within a unit it is estimated: the unit's sound is shared out by how long its
words are to say (`media.words.spoken_length`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from minicpmo_ros.media.words import is_one_word, pause_length, spoken_length, words_in
from minicpmo_ros.messages import WordMark

# Behind one of these a word does not go on in the next unit.
_ENDS = re.compile(r"(?<!\d)[.,]$|[;:!?\u2026]$|\s$")


@dataclass
class _Unit:
    """Samples [first, first + samples) of the turn."""

    first: int
    samples: int


@dataclass
class _Word:
    """begin, end: shares of the unit in which it begins, and of that in which it ends."""

    text: str
    begins_in: _Unit
    begin: float
    ends_in: _Unit
    end: float

    @property
    def first(self) -> int:
        return self.begins_in.first + round(self.begin * self.begins_in.samples)

    @property
    def stop(self) -> int:
        return self.ends_in.first + round(self.end * self.ends_in.samples)


class TimedWords:
    """The words of one turn that were not taken yet, in order. Samples count from its first."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new turn begins."""
        self._words: list[_Word] = []
        self._unit: _Unit | None = None
        self._may_go_on = False
        """The last word may be half of one."""

    def begin(self, text: str, first: int, samples: int) -> None:
        """A unit's text, whose sound is samples [first, first + samples). If there come to be none,
        its words sound with the next sample."""
        unit = self._unit = _Unit(first, samples)
        words = words_in(text)
        goes_on = bool(self._may_go_on and self._words and words and not text[0].isspace())
        lengths = [(spoken_length(word), pause_length(word)) for word in words]
        total = sum(map(sum, lengths)) or 1.0
        at = 0.0
        for number, (word, (said, pause)) in enumerate(zip(words, lengths, strict=True)):
            begin, end = at / total, (at + said) / total
            at += said + pause
            if number == 0 and goes_on and is_one_word(self._words[-1].text, word):
                last = self._words[-1]
                last.text, last.ends_in, last.end = last.text + word, unit, end
            else:
                self._words.append(_Word(word, unit, begin, unit, end))
        if text:
            self._may_go_on = bool(self._words) and not _ENDS.search(text)

    def settle(self, samples: int) -> None:
        """The unit that was begun last is over and has so many samples."""
        if self._unit is not None:
            self._unit.samples = samples

    def take(self, first: int, stop: int, *, last: bool = False) -> tuple[WordMark, ...]:
        """The words that end in samples [first, stop), or have ended and were not taken; counted
        from `first`. `last`: all that are left, none of them half.
        """
        count = len(self._words)
        if not last:
            whole = max(count - self._may_go_on, 0)
            count = next((n for n in range(whole) if self._words[n].stop > stop), whole)
        taken, self._words = self._words[:count], self._words[count:]
        return tuple(
            WordMark(word.text, _within(word.first - first), _within(word.stop - first))
            for word in taken
        )


def _within(sample: int) -> int:
    """A word that was to end before this piece is heard with its first sample."""
    return max(sample, 0)

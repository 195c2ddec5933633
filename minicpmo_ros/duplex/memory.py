"""What is remembered of a turn that was cut off: the words that were heard, and no others.

The cache then holds what it would if the model had said just these words, and had listened from
there on. Nothing that was seen or heard is lost: what stands behind the last word that was heard is
read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from minicpmo_ros.duplex.window import KeptUnit, Window
from minicpmo_ros.media.words import words_in
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Part

# Speech lags behind its units by some seconds at most; what a unit has read is kept for so many.
READABLE = 16
_KEPT = 256


@dataclass(eq=False)
class PastUnit:
    """A unit that is closed.

    key: the caller's number of it, which grows. turn: in which it speaks, from 1; 0: it listens.
    passes: what was read of it before it decided. fed: the tokens of its decision, the last of
    which ends it. words: places in `fed` of those that are text.
    """

    key: int
    turn: int
    passes: Sequence[Sequence[Part]]
    fed: tuple[int, ...]
    words: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        """Its text."""
        return [self.fed[place] for place in self.words]


class SpokenMemory:
    """The last units of a window, and what of them is to be forgotten."""

    def __init__(self, window: Window, tokenizer: Tokenizer) -> None:
        self._window = window
        self._tokenizer = tokenizer
        self._units: deque[PastUnit] = deque(maxlen=_KEPT)

    def forget(self) -> None:
        """All that was said so far stays as it is."""
        self._units.clear()

    def add(self, unit: PastUnit) -> None:
        """A unit that was closed just now."""
        self._units.append(unit)
        if len(self._units) > READABLE:
            self._units[-1 - READABLE].passes = ()

    def keep(self, heard: str, key: int) -> bool | None:
        """Keep only these words of the turn that the unit `key`, or the last before it, speaks in,
        and nothing of turns that began later.

        Returns:
            Whether the turn is open behind the last unit; None where nothing had to change.

        Raises:
            Whatever the network raises; the units that were to be read again are then forgotten.
        """
        units = list(self._units)
        self.forget()
        kept = self._kept(units, heard, key)
        changed = (n for n, unit in enumerate(units) if kept[n] < len(unit.words))
        first = next(changed, len(units))
        first = max(first, len(units) - min(READABLE, len(self._window.units)))
        if first >= len(units):
            return None
        turn = units[first].turn
        is_open = bool(turn) and any(unit.turn == turn for unit in units[:first])
        return self._rewrite(units[first:], kept[first:], is_open)

    def _rewrite(self, units: list[PastUnit], kept: list[int], is_open: bool) -> bool:
        window, context, control = self._window, self._window.context, self._tokenizer.control
        start = context.length - sum(unit.rows for unit in list(window.units)[-len(units) :])
        window.drop_last(len(units))
        made: list[KeptUnit] = []
        try:
            for number, (unit, count) in enumerate(zip(units, kept, strict=True)):
                begin = context.length if number else start
                if number:
                    for one in unit.passes:
                        context.read(*one)
                else:
                    context.truncate(start + sum(len(part) for one in unit.passes for part in one))
                if count:
                    fed = [*unit.fed[: unit.words[count - 1] + 1], control.chunk_eos]
                else:
                    fed = [*([control.turn_eos] if is_open else []), control.listen]
                is_open = bool(count)
                context.read([*fed, control.unit_end])
                made.append(KeptUnit(context.length - begin, tuple(unit.ids[:count])))
        except Exception:
            context.truncate(start)
            raise
        window.units.extend(made)
        return is_open

    def _kept(self, units: list[PastUnit], heard: str, key: int) -> list[int]:
        """How many words' tokens of each unit were heard."""
        spoken = [unit.turn for unit in units if unit.turn and unit.key <= key]
        turn = spoken[-1] if spoken else 0
        said = [token for unit in units if unit.turn == turn != 0 for token in unit.ids]
        left = heard_tokens(self._tokenizer, said, heard)
        kept = []
        for unit in units:
            count = len(unit.words)
            if not unit.turn or unit.turn == turn:
                count = min(count, left)
                left -= count
            elif unit.turn > turn:
                count = 0
            kept.append(count)
        return kept


def heard_tokens(tokenizer: Tokenizer, ids: Sequence[int], heard: str) -> int:
    """How many tokens of a turn make up the words of it that were heard."""
    stream = tokenizer.stream()
    # Letters of the turn after each of its tokens.
    text, ends = "", []
    for token in ids:
        text += stream.push(token)
        ends.append(_letters(text))
    letters = _heard_letters(text, heard)
    count = sum(end <= letters for end in ends)
    # A token that only begins a character, or is a space, goes with what follows it.
    while 0 < count < len(ends) and ends[count - 1] == (ends[count - 2] if count > 1 else 0):
        count -= 1
    return count


def _letters(text: str) -> int:
    """Characters but for spaces: how text and what was heard of it are cut into words differs."""
    return len("".join(text.split()))


def _heard_letters(text: str, heard: str) -> int:
    """How far in the text the words that were heard reach. Of those that are not in it in their
    order nothing follows: some of it may not have become speech."""
    words = words_in(text)
    ends = []
    at = 0
    for word in words:
        at += _letters(word)
        ends.append(at)
    place = 0
    # At its end a turn is said with a sign for a character of which there is only half.
    for word in words_in(heard.replace("\ufffd", "")):
        if word in words[place:]:
            place = words.index(word, place) + 1
    return ends[place - 1] if place else 0

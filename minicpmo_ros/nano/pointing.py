"""Where to look, read from a sequence itself: what attention is taught in training.

To answer about a thing, it must be found among the queries of a picture by its kind; to report what
was promised, the promise must be found first. From right words alone that was not learned: after
4,000 steps half of the colours were right. So one head each is told where to look:

- NAMED: the word for a thing that an answer begins with, at the query that tells of it;
- AWAITED: the place of a decision, at the word for what was promised and did not happen yet;
- FOUND: the same place, one layer later, at the query that tells of that;
- CHANGED: the words of an answer that tells of a change, at the end of the picture that was the
  first to show it.

What is not there is looked for at the end of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.media.world.things import COLOURS, KINDS
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.changes import HOWS, changes_of
from minicpmo_ros.nano.wordings import NUMBERS

NAMED, AWAITED, FOUND, CHANGED = range(4)
_PROMISE = ["i", "will", "tell", "you", "when"]
_REFUSAL = ["i", "will", "not"]
_EVENTS = ("appear", "disappear", "turn", "are")
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Word:
    """A word that was said, in lower case. at: its token. picture: the number of the newest one."""

    text: str
    at: int
    picture: int


@dataclass(frozen=True)
class _Awaited:
    """kind, colour: 1 + index, 0: any. at: of the word to look at."""

    event: tuple[str, ...]
    kind: int
    colour: int
    at: int


class Pointing:
    """Reads sequences of one tokenizer. queries: of a picture."""

    def __init__(self, tokenizer: Tokenizer, queries: int) -> None:
        self._tokenizer, self._queries = tokenizer, queries
        self._texts: dict[int, str] = {}

    def points(self, ids: Sequence[int], decides: Sequence[int], slots: Sequence[Ints]) -> Ints:
        """int64 [N, 3]: what (NAMED, AWAITED or FOUND), from which place, at which one.

        Args:
            ids: of a sequence in the layout of `examples`.
            decides: the places of its decisions.
            slots: of each of its pictures, see `examples.slots_of`.
        """
        control, deciding = self._tokenizer.control, set(decides)
        found: list[tuple[int, int, int]] = []
        awaited: list[_Awaited] = []
        said: list[_Word] = []
        firsts: list[int] = []  # the places of the pictures' first queries
        speaking, unit = False, 0
        for at, token in enumerate(ids):
            if token == control.unit:
                unit = at
            elif token == control.image:
                firsts.append(at + 1)
            elif token in (control.speak, control.listen, control.chunk_eos):
                speaking = token == control.speak
            elif token == control.turn_eos:
                found += self._named(said, slots, firsts)
                found += self._changed(said, slots, firsts)
                awaited = _awaited(said, awaited)
                said, speaking = [], False
            elif speaking:
                self._hear(token, at, len(firsts) - 1, said)
            if at in deciding and firsts and firsts[-1] > unit:
                found += self._decided(at, awaited, slots[len(firsts) - 1], firsts[-1])
        return np.array(found, np.int64).reshape(-1, 3)

    def _hear(self, token: int, at: int, picture: int, said: list[_Word]) -> None:
        if token not in self._texts:
            self._texts[token] = self._tokenizer.decode([token])
        text = self._texts[token].lower()
        if text.startswith(" ") or not said:
            said.append(_Word(text.strip(), at, picture))
        elif text.isalpha():
            said[-1] = _Word(said[-1].text + text, at, picture)

    def _named(
        self, said: Sequence[_Word], slots: Sequence[Ints], firsts: Sequence[int]
    ) -> list[tuple[int, int, int]]:
        """Of an answer: "The (red) cup is"."""
        texts = [one.text for one in said]
        if texts[:1] != ["the"] or "is" not in texts[2:4]:
            return []
        *before, name = said[1 : texts.index("is")]
        kind, colour = _kind(name.text), _colour(before[0].text if before else "")
        if not kind or name.picture < 0:
            return []
        target = self._place(kind, colour, slots[name.picture], firsts[name.picture])
        return [(NAMED, name.at, target)] if target is not None else []

    def _changed(
        self, said: Sequence[_Word], slots: Sequence[Ints], firsts: Sequence[int]
    ) -> list[tuple[int, int, int]]:
        """Of an answer: "The red cup appeared", or "The cup turned red"."""
        event = _change(said)
        if not event:
            return []
        seen = changes_of(slots[: said[0].picture + 1])
        same = np.flatnonzero((seen == event).all(1))
        if not len(same):
            return []
        target = firsts[int(same[-1])] + self._queries
        # The last word has said it all.
        return [(CHANGED, word.at, target) for word in said[:-1]]

    def _decided(
        self, at: int, awaited: Sequence[_Awaited], slots: Ints, first: int
    ) -> list[tuple[int, int, int]]:
        """Where one thing is awaited; of several, which one happens is not known here."""
        if len(awaited) != 1:
            return []
        (one,) = awaited
        found = [(AWAITED, at, one.at)]
        if one.kind:
            target = self._place(one.kind, one.colour, slots, first)
            found += [(FOUND, at, target)] if target is not None else []
        return found

    def _place(self, kind: int, colour: int, slots: Ints, first: int) -> int | None:
        """Of the one query that tells of such a thing, or of the picture's end; None where several
        tell of one."""
        same = (slots[:, 0] == kind) & ((slots[:, 1] == colour) | (colour == 0))
        rows = np.flatnonzero(same)
        if len(rows) > 1:
            return None
        return first + (int(rows[0]) if len(rows) else self._queries)


def _awaited(said: Sequence[_Word], before: Sequence[_Awaited]) -> list[_Awaited]:
    """What is awaited behind a turn, and what was before it."""
    texts = [one.text for one in said]
    if texts == _REFUSAL:
        return []
    promised = texts[: len(_PROMISE)] == _PROMISE
    rest = said[len(_PROMISE) :] if promised else said
    event = _event(rest)
    kinds = [one for one in rest if _kind(one.text)]
    if promised and event:
        colour = next((_colour(one.text) for one in rest if _colour(one.text)), 0)
        name = kinds[0] if kinds else next(one for one in rest if one.text in NUMBERS)
        return [*before, _Awaited(event, _kind(name.text), colour, name.at)]
    return [one for one in before if one.event != event]


def _event(said: Sequence[_Word]) -> tuple[str, ...]:
    """What happens, and to what; () for anything else, and for what was cut off."""
    texts = [one.text for one in said]
    what = [one for one in texts if _kind(one) or _colour(one) or one in NUMBERS]
    verbs = [event for one in texts for event in _EVENTS if one.startswith(event)]
    return (verbs[0], *what) if verbs and what else ()


def _change(said: Sequence[_Word]) -> tuple[int, int, int] | None:
    """What an answer tells of as `changes_of` has it; None for any other."""
    match [one.text for one in said]:
        case ["the", colour, kind, ("appeared" | "disappeared") as how]:
            pass
        case ["the", kind, "turned" as how, colour]:
            pass
        case _:
            return None
    return 1 + HOWS.index(how), _kind(kind), _colour(colour)


def _kind(text: str) -> int:
    return 1 + KINDS.index(text) if text in KINDS else 0


def _colour(text: str) -> int:
    return 1 + COLOURS.index(text) if text in COLOURS else 0

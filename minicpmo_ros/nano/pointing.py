"""Where to look, read from a sequence itself: what attention is taught in training.

To answer about a thing, it must be found among the queries of a picture by its kind; to report what
was promised, the promise must be found first. From right words alone that was not learned: after
4,000 steps half of the colours were right. So one head each is told where to look:

- NAMED: the word for a thing that an answer is about, at the query that tells of it;
- CARRIED: before each word that an answer says of that thing, at the word for it, which may have
  been said a second and a picture ago;
- DESCRIBED: before each word of a list, at the query that tells of the thing which comes next;
- AWAITED: the place of a decision, at the word for what was promised and did not happen yet;
- FOUND: the same place, one layer later, at the query that tells of that;
- BEFORE: each query that tells of a thing, or did in the picture before, at the same one there;
- NEW: the end of a picture, one layer later, at the query whose thing came, went or turned;
- CHANGED: the words of an answer that tells of a change, at the end of the picture that was the
  first to show it.

What is not there is looked for at the end of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.changes import HOWS, changes_of, where_new
from minicpmo_ros.nano.naming import (
    Gaze,
    Ints,
    Picture,
    Point,
    Word,
    about_one,
    about_several,
    colour_of,
    kind_of,
)
from minicpmo_ros.nano.wordings import NUMBERS

_PROMISE = ["i", "will", "tell", "you", "when"]
_REFUSAL = ["i", "will", "not"]
_EVENTS = ("appear", "disappear", "turn", "are")


@dataclass(frozen=True)
class _Awaited:
    """kind, colour: 1 + index, 0: any. at: of the word to look at."""

    event: tuple[str, ...]
    kind: int
    colour: int
    at: int


class Pointing:
    """Reads sequences of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}

    def points(self, ids: Sequence[int], decides: Sequence[int], slots: Sequence[Ints]) -> Ints:
        """int64 [N, 3]: what of those above, from which place, at which one.

        Args:
            ids: of a sequence in the layout of `examples`.
            decides: the places of its decisions.
            slots: of each of its pictures, see `examples.slots_of`.
        """
        control, deciding = self._tokenizer.control, set(decides)
        found: list[Point] = []
        awaited: list[_Awaited] = []
        said: list[Word] = []
        pictures: list[Picture] = []
        speaking, unit = False, 0
        for at, token in enumerate(ids):
            if token == control.unit:
                unit = at
            elif token == control.image:
                pictures.append(Picture(at + 1, slots[len(pictures)]))
                found += where_new(pictures)
            elif token in (control.speak, control.listen, control.chunk_eos):
                speaking = token == control.speak
            elif token == control.turn_eos:
                found += about_one(said, pictures)
                found += _changed(said, pictures)
                if not _event(said):
                    found += about_several(said, pictures)
                awaited = _awaited(said, awaited)
                said, speaking = [], False
            elif speaking:
                self._hear(token, at, len(pictures) - 1, said)
            if at in deciding and pictures and pictures[-1].first > unit:
                found += _decided(at, awaited, pictures[-1])
        return np.array(found, np.int64).reshape(-1, 3)

    def _hear(self, token: int, at: int, picture: int, said: list[Word]) -> None:
        if token not in self._texts:
            self._texts[token] = self._tokenizer.decode([token])
        text = self._texts[token].lower()
        if text.startswith(" ") or not said:
            said.append(Word(text.strip(), at, at - 1, picture))
        elif text.isalpha():
            said[-1] = replace(said[-1], text=said[-1].text + text, at=at)


def _changed(said: Sequence[Word], pictures: Sequence[Picture]) -> list[Point]:
    """Of an answer: "The red cup appeared", or "The cup turned red"."""
    event = _change(said)
    if not event:
        return []
    seen = changes_of([one.slots for one in pictures[: said[0].picture + 1]])
    same = np.flatnonzero((seen == event).all(1))
    if not len(same):
        return []
    # The last word has said it all.
    return [(Gaze.CHANGED, word.at, pictures[int(same[-1])].end) for word in said[:-1]]


def _decided(at: int, awaited: Sequence[_Awaited], picture: Picture) -> list[Point]:
    """Where one thing is awaited; of several, which one happens is not known here."""
    if len(awaited) != 1:
        return []
    (one,) = awaited
    found: list[Point] = [(Gaze.AWAITED, at, one.at)]
    if one.kind:
        target = picture.place(one.kind, one.colour)
        found += [(Gaze.FOUND, at, target)] if target is not None else []
    return found


def _awaited(said: Sequence[Word], before: Sequence[_Awaited]) -> list[_Awaited]:
    """What is awaited behind a turn, and what was before it."""
    texts = [one.text for one in said]
    if texts == _REFUSAL:
        return []
    promised = texts[: len(_PROMISE)] == _PROMISE
    rest = said[len(_PROMISE) :] if promised else said
    event = _event(rest)
    kinds = [one for one in rest if kind_of(one.text)]
    if promised and event:
        colour = next((colour_of(one.text) for one in rest if colour_of(one.text)), 0)
        name = kinds[0] if kinds else next(one for one in rest if one.text in NUMBERS)
        return [*before, _Awaited(event, kind_of(name.text), colour, name.at)]
    return [one for one in before if one.event != event]


def _event(said: Sequence[Word]) -> tuple[str, ...]:
    """What happens, and to what; () for anything else, and for what was cut off."""
    texts = [one.text for one in said]
    what = [one for one in texts if kind_of(one) or colour_of(one) or one in NUMBERS]
    verbs = [event for one in texts for event in _EVENTS if one.startswith(event)]
    return (verbs[0], *what) if verbs and what else ()


def _change(said: Sequence[Word]) -> tuple[int, int, int] | None:
    """What an answer tells of as `changes_of` has it; None for any other."""
    match [one.text for one in said]:
        case ["the", colour, kind, ("appeared" | "disappeared") as how]:
            pass
        case ["the", kind, "turned" as how, colour]:
            pass
        case _:
            return None
    return 1 + HOWS.index(how), kind_of(kind), colour_of(colour)

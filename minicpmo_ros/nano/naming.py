"""Where an answer about things looks while it names them, one after the other, over its units.

An answer is spoken over several seconds, three words in each: what it says behind the first of them
is about a picture that is not the newest any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.media.world.things import COLOURS, KINDS

_ARTICLES = ("a", "an")
Ints = NDArray[np.int64]
Point = tuple[int, int, int]


class Gaze(IntEnum):
    """What attention is taught to look for, see `pointing`."""

    NAMED = 0
    AWAITED = 1
    FOUND = 2
    CHANGED = 3
    CARRIED = 4
    DESCRIBED = 5
    BEFORE = 6
    NEW = 7


@dataclass(frozen=True)
class Word:
    """A word that was said, in lower case. at: its last token; the one before its first tells that
    it comes, at `told`. picture: the number of the newest one."""

    text: str
    at: int
    told: int
    picture: int


@dataclass(frozen=True)
class Picture:
    """first: the place of its first query. slots: int64 [queries, 4], see `examples.slots_of`."""

    first: int
    slots: Ints

    @property
    def end(self) -> int:
        return self.first + len(self.slots)

    def place(self, kind: int, colour: int) -> int | None:
        """Of the one query that tells of such a thing, or of the picture's end; None where several
        tell of one. kind, colour: 1 + index, 0: any."""
        same = (self.slots[:, 0] == kind) & ((self.slots[:, 1] == colour) | (colour == 0))
        rows = np.flatnonzero(same)
        if len(rows) > 1:
            return None
        return self.first + int(rows[0]) if len(rows) else self.end


def about_one(said: Sequence[Word], pictures: Sequence[Picture]) -> Iterator[Point]:
    """Of an answer "The (red) cup is ...": the name at the thing, and what comes behind "is" at the
    name."""
    texts = [one.text for one in said]
    if texts[:1] != ["the"] or "is" not in texts[2:4]:
        return
    verb = texts.index("is")
    *before, name = said[1:verb]
    kind, colour = kind_of(name.text), colour_of(before[0].text if before else "")
    if not kind or name.picture < 0:
        return
    target = pictures[name.picture].place(kind, colour)
    if target is not None:
        yield Gaze.NAMED, name.at, target
    for word in said[verb + 1 :]:
        yield Gaze.CARRIED, word.told, name.at


def about_several(said: Sequence[Word], pictures: Sequence[Picture]) -> Iterator[Point]:
    """Of an answer "(I see) a red cup and a blue ball.": before each of these words at the thing,
    and from its kind at it once more."""
    texts = [one.text for one in said]
    first = 2 if texts[:2] == ["i", "see"] else 0
    if texts[first : first + 1] not in ([one] for one in _ARTICLES) or said[0].picture < 0:
        return
    picture = pictures[said[0].picture]
    rows = [int(row) for row in np.flatnonzero(picture.slots[:, 0])]
    for at in range(first, len(said) - 2):
        if texts[at] not in _ARTICLES:
            continue
        wanted = [kind_of(texts[at + 2]), colour_of(texts[at + 1])]
        while rows and picture.slots[rows[0], :2].tolist() != wanted:
            rows.pop(0)
        if not rows:
            return
        target = picture.first + rows.pop(0)
        yield from ((Gaze.DESCRIBED, word.told, target) for word in said[at : at + 3])
        yield Gaze.NAMED, said[at + 2].at, target


def kind_of(text: str) -> int:
    """1 + index, 0 for what is none."""
    return 1 + KINDS.index(text) if text in KINDS else 0


def colour_of(text: str) -> int:
    """1 + index, 0 for what is none."""
    return 1 + COLOURS.index(text) if text in COLOURS else 0

"""What changed from one picture of a sequence to the next, as training tells it.

Whoever is asked what changed has to compare pictures that are long gone. So at the end of each
picture training asks what is new in it, and an answer that tells of a change looks there. What is
new is seen query by query, each of which looks at the same one of the picture before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from minicpmo_ros.nano.naming import Gaze, Ints, Picture, Point

NO_LABEL = -100
HOWS = ("appeared", "disappeared", "turned")


def changes_of(slots: Sequence[Ints]) -> Ints:
    """What is new in each picture: int64 [N, 3], 1 + index in HOWS, in KINDS and in COLOURS, the
    last of which is what it turned to, or had. All 0: nothing; NO_LABEL: several things, or it is
    the first picture. slots: of each picture, see `examples.slots_of`."""
    found = np.zeros((len(slots), 3), np.int64)
    found[:1] = NO_LABEL
    for number in range(1, len(slots)):
        found[number] = _change(_things(slots[number - 1]), _things(slots[number]))
    return found


def _things(slots: Ints) -> set[tuple[int, int]]:
    return {(int(kind), int(colour)) for kind, colour, *_ in slots if kind}


def _change(before: set[tuple[int, int]], now: set[tuple[int, int]]) -> tuple[int, int, int]:
    come, gone = sorted(now - before), sorted(before - now)
    match come, gone:
        case [], []:
            return 0, 0, 0
        case [(kind, colour)], []:
            return 1, kind, colour
        case [], [(kind, colour)]:
            return 2, kind, colour
        case [(kind, colour)], [(other, _)] if kind == other:
            return 3, kind, colour
    return NO_LABEL, NO_LABEL, NO_LABEL


def at_ends(ids: Sequence[int], image_end: int, slots: Sequence[Ints]) -> Ints:
    """What is new in each picture of a sequence, behind the place of its end: int64 [N, 4]."""
    ends = [at for at, token in enumerate(ids) if token == image_end]
    return np.column_stack([np.array(ends, np.int64), changes_of(slots)])


def where_new(pictures: Sequence[Picture]) -> Iterator[Point]:
    """Of the newest picture: what its queries and its end look at, see `pointing`."""
    if len(pictures) < 2:
        return
    before, now = pictures[-2:]
    for row in np.flatnonzero(before.slots[:, 0] | now.slots[:, 0]).tolist():
        yield Gaze.BEFORE, now.first + row, before.first + row
    how, kind, colour = _change(_things(before.slots), _things(now.slots))
    if how == NO_LABEL:
        return
    target: int | None = now.end
    if how:
        shown = before if HOWS[how - 1] == "disappeared" else now
        there = shown.place(kind, colour)
        target = None if there is None else now.first + there - shown.first
    if target is not None:
        yield Gaze.NEW, now.end, target

"""The drawn world: things in colours and places, and how they come, move and go.

Coordinates are fractions of the picture: x of its width from the left, y of its height from the
top, a thing's height of the picture's height. Where a width matters the picture is taken as 4:3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from minicpmo_ros.errors import ConfigError

KINDS = ("ball", "box", "cone", "star", "ring", "cross", "person", "cup")
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "purple", "orange")
PLACES = ("left", "middle", "right")
SIZES = ("small", "big")

ASPECT = 4.0 / 3.0
HEIGHTS = {"small": (0.16, 0.24), "big": (0.34, 0.48)}
# Width of a thing's outline, in its heights.
WIDTHS = {
    "ball": 1.0,
    "box": 1.0,
    "cone": 0.84,
    "star": 1.06,
    "ring": 1.0,
    "cross": 1.0,
    "person": 0.64,
    "cup": 1.0,
}

# How far a centre stays from the border between two thirds, so that its place is beyond doubt.
_CLEAR = 0.05
_EDGE = 0.01
_GAP = 0.015
_TRIES = 60
_ARRANGEMENTS = 8
_MOST_TILT = 0.12


@dataclass(frozen=True)
class Thing:
    """A thing at one moment.

    x, y: its centre. height: 0.16 to 0.24 for "small" and 0.34 to 0.48 for "big"; 0 stands for the
    middle of that. tilt: clockwise, in radians. mirrored: left and right are exchanged, which a cup
    shows by its handle. Raises `ConfigError` for a kind, colour or size that does not exist.
    """

    kind: str
    colour: str
    size: str
    x: float
    y: float
    height: float = 0.0
    tilt: float = 0.0
    mirrored: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("kind", self.kind, KINDS),
            ("colour", self.colour, COLOURS),
            ("size", self.size, SIZES),
        ):
            if value not in known:
                raise ConfigError(f"{name} of a thing is {value!r}: one of {', '.join(known)}")
        if self.height == 0.0:
            object.__setattr__(self, "height", sum(HEIGHTS[self.size]) / 2)

    @property
    def place(self) -> str:
        """The third of the picture that its centre is in."""
        return PLACES[min(2, max(0, int(self.x * 3.0)))]

    @property
    def half_width(self) -> float:
        """Half of its width at 4:3, as a fraction of the picture's width."""
        return self.height * WIDTHS[self.kind] / ASPECT / 2

    @property
    def name(self) -> tuple[str, str]:
        return self.kind, self.colour


@dataclass(frozen=True)
class Life:
    """A thing over time: in view from enters_s until before leaves_s (seconds of the episode).

    turns: (t_s, colour) in order of time; from t_s on it has that colour. velocity: fractions of
    the picture's width and height a second, from the thing's x and y at enters_s (at 0 where it
    was always there) or at moves_s[0] if that is later, until moves_s[1]. Motion stops where the
    thing would leave the picture. Raises `ConfigError` for turns out of order.
    """

    thing: Thing
    enters_s: float = -math.inf
    leaves_s: float = math.inf
    turns: tuple[tuple[float, str], ...] = ()
    velocity: tuple[float, float] = (0.0, 0.0)
    moves_s: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        if any(later <= sooner for (sooner, _), (later, _) in pairwise(self.turns)):
            raise ConfigError(f"turns of a {self.thing.kind} are {self.turns}: by rising time")
        for _, colour in self.turns:
            if colour not in COLOURS:
                raise ConfigError(f"a thing turns {colour!r}: one of {', '.join(COLOURS)}")

    def at(self, t_s: float) -> Thing | None:
        """The thing as it is at t_s; None while it is not in view."""
        if not self.enters_s <= t_s < self.leaves_s:
            return None
        colour = self.thing.colour
        for turn_s, turned in self.turns:
            if turn_s <= t_s:
                colour = turned
        x, y = self.thing.x, self.thing.y
        if self.velocity != (0.0, 0.0):
            start_s = max(self.enters_s if math.isfinite(self.enters_s) else 0.0, self.moves_s[0])
            moving_s = max(0.0, min(t_s, self.moves_s[1]) - start_s)
            x = _inside(x, self.velocity[0] * moving_s, self.thing.half_width)
            y = _inside(y, self.velocity[1] * moving_s, self.thing.height / 2)
        return replace(self.thing, colour=colour, x=x, y=y)


@dataclass(frozen=True)
class Scene:
    """Everything that an episode shows; later lives stand in front of earlier ones."""

    lives: tuple[Life, ...] = ()

    def at(self, t_s: float) -> tuple[Thing, ...]:
        """The things in view at t_s, from the back to the front."""
        return tuple(thing for life in self.lives if (thing := life.at(t_s)) is not None)


# An eighth of all combinations, as a Latin square: three of every kind and of every colour, eight
# of every place, and never two places of one (kind, colour).
_HELD_OUT = tuple(
    (kind, colour, place)
    for k, kind in enumerate(KINDS)
    for c, colour in enumerate(COLOURS)
    for place, shift in zip(PLACES, (0, 2, 5), strict=True)
    if (k + 3 * c + shift) % 8 == 0
)
_HELD_OUT_SET = frozenset(_HELD_OUT)
_NAMES = tuple((kind, colour) for kind in KINDS for colour in COLOURS)


def is_held_out(kind: str, colour: str, place: str) -> bool:
    """Whether this combination is kept from training, to be shown only in evaluation."""
    return (kind, colour, place) in _HELD_OUT_SET


def random_things(
    rng: np.random.Generator,
    count: int,
    *,
    held_out: bool = False,
    beside: Sequence[Thing] = (),
) -> tuple[Thing, ...]:
    """count things of different (kind, colour) that do not overlap.

    held_out False: none is a combination kept from training; True: the first one is, the others
    are whatever comes. beside: things already there, whose names and places are taken. More
    than six or so in all may overlap a little. Raises `ConfigError` where there are more
    than the names there are.
    """
    free = len(_NAMES) - len({thing.name for thing in beside})
    if not 0 <= count <= free:
        raise ConfigError(f"{count} things are asked for: 0 to {free} can be")
    best: tuple[Thing, ...] = ()
    least = math.inf
    for _ in range(_ARRANGEMENTS):
        things, overlap = _arrange(rng, count, held_out, beside)
        if overlap < least:
            best, least = things, overlap
        if overlap == 0.0:
            break
    return best


def _arrange(
    rng: np.random.Generator, count: int, held_out: bool, beside: Sequence[Thing]
) -> tuple[tuple[Thing, ...], float]:
    """The things, and how much of them lies over one another."""
    things = list(beside)
    names = {thing.name for thing in beside}
    overlap = 0.0
    for index in range(count):
        kind, colour, places = _draw_name(rng, names, held_out, first=index == 0)
        names.add((kind, colour))
        thing, shared = _put(rng, kind, colour, places, things)
        things.append(thing)
        overlap += shared
    return tuple(things[len(beside) :]), overlap


def _draw_name(
    rng: np.random.Generator, taken: set[tuple[str, str]], held_out: bool, first: bool
) -> tuple[str, str, tuple[str, ...]]:
    """A (kind, colour) not taken, and the places where it may stand."""
    if held_out and first:
        free = [combination for combination in _HELD_OUT if combination[:2] not in taken]
        if not free:
            raise ConfigError("every held-out combination is taken: ask with fewer things beside")
        kind, colour, place = free[rng.integers(len(free))]
        return kind, colour, (place,)
    while True:
        kind, colour = _NAMES[rng.integers(len(_NAMES))]
        places = tuple(
            place for place in PLACES if held_out or not is_held_out(kind, colour, place)
        )
        if (kind, colour) not in taken and places:
            return kind, colour, places


def _put(
    rng: np.random.Generator,
    kind: str,
    colour: str,
    places: tuple[str, ...],
    others: Sequence[Thing],
) -> tuple[Thing, float]:
    """The thing at a random free spot, and how much it overlaps where none was found.

    Of any size at first, small after half the tries.
    """
    size = SIZES[rng.integers(2)]
    tilt = 0.0 if rng.random() < 0.3 else float(rng.uniform(-_MOST_TILT, _MOST_TILT))
    mirrored = bool(rng.random() < 0.5)
    best, least = None, math.inf
    for attempt in range(_TRIES):
        tried = size if attempt < _TRIES // 2 else "small"
        third = PLACES.index(places[rng.integers(len(places))])
        height = float(rng.uniform(*HEIGHTS[tried]))
        thing = Thing(kind, colour, tried, 0.0, 0.0, height, tilt, mirrored)
        reach = thing.half_width + _EDGE
        low = reach if third == 0 else third / 3 + _CLEAR
        high = 1.0 - reach if third == 2 else (third + 1) / 3 - _CLEAR
        up = height / 2 + _EDGE
        thing = replace(thing, x=float(rng.uniform(low, high)), y=float(rng.uniform(up, 1 - up)))
        area = sum(_overlap(thing, other) for other in others)
        if area == 0.0:
            return thing, 0.0
        if area < least:
            best, least = thing, area
    assert best is not None
    return best, least


def _overlap(a: Thing, b: Thing) -> float:
    """The area that the boxes around two things share, with a gap kept between them."""
    x = a.half_width + b.half_width + _GAP - abs(a.x - b.x)
    y = (a.height + b.height) / 2 + _GAP - abs(a.y - b.y)
    return x * y if x > 0.0 and y > 0.0 else 0.0


def _inside(start: float, moved: float, reach: float) -> float:
    """Where a motion along one axis has come to; it never leads further out than it started."""
    low, high = min(start, reach), max(start, 1.0 - reach)
    return min(max(start + moved, low), high)

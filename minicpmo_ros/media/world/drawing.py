"""Things drawn into pictures, and the same things as labels on a grid.

A picture gets, for every thing, a scaled and turned copy of its kind's sprite in its colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minicpmo_ros.media.opencv import opencv
from minicpmo_ros.media.world.looks import Look
from minicpmo_ros.media.world.sprites import CANVAS, EMPTY, LEVELS, UNIT, sprite
from minicpmo_ros.media.world.things import ASPECT, COLOURS, KINDS, Thing

# A thing owns a cell of which it covers this part; one cell it owns even with the lesser part.
_FAIR_PART = 0.25
_LEAST_PART = 0.04
_PIXELS_PER_CELL = 8


def draw(
    things: Sequence[Thing],
    look: Look,
    t_s: float,
    size: tuple[int, int] = (128, 96),
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """uint8 RGB [height, width, 3] of the things at t_s (seconds of the episode); later in front.

    size: (width, height) in pixels. rng: shake and sensor noise, new in every picture. In a picture
    narrower than 4:3 things are smaller than their height says, so that none grows over another.
    """
    width, height = size
    canvas, dx, dy = look.backdrop(width, height, rng)
    tall = min(height, width / ASPECT)
    for thing in things:
        centre = (thing.x * width + dx, thing.y * height + dy)
        stamp = _stamp(thing, (tall, tall), centre, size)
        if stamp is not None:
            _paint(canvas[stamp.rows, stamp.columns], stamp.layers, thing.colour, look)
    return look.seen(canvas, t_s, rng)


def cells(things: Sequence[Thing], rows: int, columns: int, aspect: float = ASPECT) -> np.ndarray:
    """int64 [rows, columns]: what each cell of a picture shows, to be learnt as a side task.

    0: background; else 1 + index of the kind * len(COLOURS) + index of the colour, for the
    front-most thing that covers a quarter of the cell. The cell that a thing covers most is its
    own even with less, so that a coarse grid loses no small thing. aspect: width to height of the
    picture.
    """
    labels = np.zeros((rows, columns), np.int64)
    width, height = size = (columns * _PIXELS_PER_CELL, rows * _PIXELS_PER_CELL)
    tall = min(1.0, aspect / ASPECT)
    for thing in things:
        centre = (thing.x * width, thing.y * height)
        stamp = _stamp(thing, (tall * width / aspect, tall * height), centre, size)
        if stamp is None:
            continue
        cover = np.zeros((height, width), np.float32)
        cover[stamp.rows, stamp.columns] = stamp.layers[:, :, 0]
        parts = cover.reshape(rows, _PIXELS_PER_CELL, columns, _PIXELS_PER_CELL).mean((1, 3)) / 255
        most = parts.max()
        owned = (parts >= _FAIR_PART) | ((parts == most) & (most >= _LEAST_PART))
        labels[owned] = 1 + KINDS.index(thing.kind) * len(COLOURS) + COLOURS.index(thing.colour)
    return labels


class _Stamp(NamedTuple):
    """layers: uint8 [rows, columns, 3], a part of a picture seen through a sprite."""

    layers: np.ndarray
    rows: slice
    columns: slice


def _stamp(
    thing: Thing,
    scale: tuple[float, float],
    centre: tuple[float, float],
    size: tuple[int, int],
) -> _Stamp | None:
    """The thing's sprite as it lies on a raster; None where no part of it is on the raster.

    scale: pixels across and down of something as tall as the picture. centre: in pixels from the
    left and the top. size: (width, height) of the raster.
    """
    across, down = thing.height * scale[0], thing.height * scale[1]
    reach_x, reach_y = 0.62 * across, 0.62 * down
    left, right = (
        max(0, math.floor(centre[0] - reach_x)),
        min(size[0], math.ceil(centre[0] + reach_x)),
    )
    top, bottom = (
        max(0, math.floor(centre[1] - reach_y)),
        min(size[1], math.ceil(centre[1] + reach_y)),
    )
    if left >= right or top >= bottom:
        return None
    # The smallest sprite that need not be enlarged: taking every other of its pixels at most.
    level = min(LEVELS - 1, max(0, math.floor(math.log2(UNIT / max(across, down, 1.0)))))
    unit, middle = UNIT / 2**level, CANVAS / 2 ** (level + 1)
    cos, sin = math.cos(thing.tilt), math.sin(thing.tilt)
    flip = -1.0 if thing.mirrored else 1.0
    to_sprite = np.array(
        [
            [flip * cos * unit / across, flip * sin * unit / down, 0.0],
            [-sin * unit / across, cos * unit / down, 0.0],
        ]
    )
    # Pixel i is centred at i + 0.5, in the picture and in the sprite.
    start = np.array([left + 0.5 - centre[0], top + 0.5 - centre[1]])
    to_sprite[:, 2] = to_sprite[:, :2] @ start + middle - 0.5
    cv2 = opencv()
    layers = cv2.warpAffine(
        sprite(thing.kind)[level],
        to_sprite,
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderValue=EMPTY,
    )
    return _Stamp(layers, slice(top, bottom), slice(left, right))


def _paint(canvas: np.ndarray, layers: np.ndarray, colour: str, look: Look) -> None:
    paint = np.array(look.paints[COLOURS.index(colour)], np.float32)
    cover, outline, light = np.split(layers.astype(np.float32), 3, axis=2)
    cover *= 1 / 255
    outline *= 1 / 255
    light *= 1 / 128
    painted = paint * np.minimum(light, 1.0) + (255.0 - paint) * np.maximum(light - 1.0, 0.0)
    painted += outline * (_edge(colour, paint) - painted)
    canvas[:] = canvas + cover * (painted - canvas)


def _edge(colour: str, paint: np.ndarray) -> np.ndarray:
    """The colour of an outline: one that parts the thing from a wall of its own colour."""
    if colour == "black":
        return np.full(3, 150.0, np.float32)
    if colour == "white":
        return np.full(3, 95.0, np.float32)
    return np.float32(0.5) * paint

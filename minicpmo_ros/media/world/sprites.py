"""The forms of the things, drawn once and large; pictures get scaled copies.

A form is drawn in units of its own height, centred, y down: from -0.5 to 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from minicpmo_ros.media.opencv import opencv

# Side of the largest sprite, and how many of its pixels are the height of the thing.
CANVAS = 512
UNIT = 384.0
LEVELS = 6
# Layers: cover (255: all), outline (255: all), light (128: as painted, more: towards white).
# Beside the form nothing is covered, and colours bleed in from there as outline.
EMPTY = (0, 255, 128)

_OUTLINE = 0.028
_SHIFT = 4


@cache
def sprite(kind: str) -> tuple[np.ndarray, ...]:
    """LEVELS sprites of a kind, each half the size of the one before it.

    Each uint8 [side, side, 3] with the layers cover, outline and light.
    """
    cv2 = opencv()
    form = _Form()
    _FORMS[kind](form)
    reach = round(_OUTLINE * UNIT)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    inner = cv2.erode(form.cover, kernel)
    outline = np.maximum(255 - inner, form.lines)
    layers = np.dstack([form.cover, outline, form.light])
    halves = [layers]
    for _ in range(LEVELS - 1):
        side = halves[-1].shape[0] // 2
        halves.append(cv2.resize(halves[-1], (side, side), interpolation=cv2.INTER_AREA))
    return tuple(halves)


class _Form:
    """A canvas for one kind. light: a factor on the paint, 0.5 to 1.5 (above 1 towards white)."""

    def __init__(self) -> None:
        self.cover = np.zeros((CANVAS, CANVAS), np.uint8)
        self.lines = np.zeros((CANVAS, CANVAS), np.uint8)
        self.light = np.full((CANVAS, CANVAS), 128, np.uint8)
        self.u, self.v = (
            axis / UNIT for axis in np.meshgrid(*[np.arange(CANVAS) + 0.5 - CANVAS / 2] * 2)
        )

    def polygon(self, corners: Sequence[tuple[float, float]], light: float | None = None) -> None:
        points = [_fixed(np.array(corners))]
        opencv().fillPoly(self.cover, points, 255, 16, _SHIFT)
        if light is not None:
            opencv().fillPoly(self.light, points, _level(light), 8, _SHIFT)

    def ellipse(
        self, centre: tuple[float, float], rx: float, ry: float, light: float | None = None
    ) -> None:
        angles = np.linspace(0.0, 2.0 * math.pi, 90, endpoint=False)
        corners = [(centre[0] + rx * math.cos(a), centre[1] + ry * math.sin(a)) for a in angles]
        self.polygon(corners, light)

    def hole(self, centre: tuple[float, float], rx: float, ry: float) -> None:
        inside = ((self.u - centre[0]) / rx) ** 2 + ((self.v - centre[1]) / ry) ** 2 < 1.0
        self.cover[inside] = 0

    def limb(self, start: tuple[float, float], end: tuple[float, float], thick: float) -> None:
        """A thick line with round ends, which lie beyond start and end by half of thick."""
        a, b = (tuple(int(x) for x in _fixed(np.array(point))) for point in (start, end))
        opencv().line(self.cover, a, b, 255, round(thick * UNIT), 16, _SHIFT)

    def edge(self, *points: tuple[float, float]) -> None:
        """An inner edge, drawn like the outline."""
        lines = [_fixed(np.array(points))]
        opencv().polylines(self.lines, lines, False, 255, round(_OUTLINE * UNIT), 16, _SHIFT)

    def shade(self, light: np.ndarray) -> None:
        self.light[:] = np.clip(128.0 * light, 64, 192)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint((points * UNIT + CANVAS / 2 - 0.5) * (1 << _SHIFT)).astype(np.int32)


def _level(light: float) -> int:
    return round(128 * light)


def _sphere(form: _Form) -> np.ndarray:
    """Light from the upper left on a round body."""
    away = np.hypot(form.u + 0.16, form.v + 0.18)
    return 1.12 - 0.55 * away**1.5 + 0.38 * np.exp(-((away / 0.1) ** 2))


def _slope(form: _Form) -> np.ndarray:
    return 1.05 - 0.22 * (0.6 * form.u + 0.8 * form.v)


def _column(form: _Form) -> np.ndarray:
    """Light on an upright round body: a bright band left of its middle."""
    return 0.85 + 0.33 * np.exp(-(((form.u + 0.12) / 0.16) ** 2)) - 0.12 * form.u


def _ball(form: _Form) -> None:
    form.ellipse((0.0, 0.0), 0.5, 0.5)
    form.shade(_sphere(form))


def _box(form: _Form) -> None:
    deep = 0.2
    left, right, top, bottom = -0.5, 0.5 - deep, -0.5 + deep, 0.5
    far_right, far_top, far_bottom = right + deep, top - deep, bottom - deep
    form.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], 1.0)
    form.polygon([(left, top), (left + deep, far_top), (far_right, far_top), (right, top)], 1.22)
    form.polygon(
        [(right, top), (far_right, far_top), (far_right, far_bottom), (right, bottom)], 0.74
    )
    form.edge((left, top), (right, top), (far_right, far_top))
    form.edge((right, top), (right, bottom))


def _cone(form: _Form) -> None:
    form.polygon([(0.0, -0.5), (0.42, 0.4), (-0.42, 0.4)])
    form.ellipse((0.0, 0.395), 0.42, 0.1)
    form.shade(_column(form))


def _star(form: _Form) -> None:
    outer, inner, middle = 0.553, 0.24, 0.053
    corners = []
    for step in range(10):
        reach, angle = (inner if step % 2 else outer), math.pi * step / 5
        corners.append((reach * math.sin(angle), middle - reach * math.cos(angle)))
    form.polygon(corners)
    form.shade(_slope(form))


def _ring(form: _Form) -> None:
    form.ellipse((0.0, 0.0), 0.5, 0.5)
    form.hole((0.0, 0.0), 0.27, 0.27)
    form.shade(_slope(form))


def _cross(form: _Form) -> None:
    arm = 0.165
    form.polygon([(-arm, -0.5), (arm, -0.5), (arm, 0.5), (-arm, 0.5)])
    form.polygon([(-0.5, -arm), (0.5, -arm), (0.5, arm), (-0.5, arm)])
    form.shade(_slope(form))


def _person(form: _Form) -> None:
    form.ellipse((0.0, -0.355), 0.145, 0.145)
    form.limb((-0.1, -0.1), (0.1, -0.1), 0.15)
    form.polygon([(-0.16, -0.12), (0.16, -0.12), (0.13, 0.16), (-0.13, 0.16)])
    form.limb((-0.14, -0.11), (-0.26, 0.1), 0.12)
    form.limb((0.14, -0.11), (0.26, 0.1), 0.12)
    form.limb((-0.075, 0.14), (-0.13, 0.425), 0.15)
    form.limb((0.075, 0.14), (0.13, 0.425), 0.15)
    form.shade(_slope(form))


def _cup(form: _Form) -> None:
    form.ellipse((0.22, 0.02), 0.28, 0.27)
    form.hole((0.22, 0.02), 0.17, 0.16)
    form.polygon([(-0.5, -0.39), (0.26, -0.39), (0.18, 0.42), (-0.42, 0.42)])
    form.ellipse((-0.12, 0.42), 0.3, 0.08)
    form.ellipse((-0.12, -0.39), 0.38, 0.11)
    form.shade(_column(form))
    form.ellipse((-0.12, -0.385), 0.33, 0.075, 0.5)
    around = np.linspace(0.0, 2.0 * math.pi, 60)
    form.edge(*[(-0.12 + 0.34 * math.cos(a), -0.385 + 0.08 * math.sin(a)) for a in around])


_FORMS = {
    "ball": _ball,
    "box": _box,
    "cone": _cone,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "person": _person,
    "cup": _cup,
}

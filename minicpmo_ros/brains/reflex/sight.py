"""What the reflex brain sees: a few honest figures of a picture, and of the change between two.

Every picture is first sampled on one fixed grid and averaged to small cells, so that a look costs
the same for any resolution and sensor noise does not count as motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import Picture

ROWS, COLUMNS = 48, 64
SAMPLES_PER_CELL = 3  # in each direction
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

CELL_CHANGE = 0.08  # change of a cell's luma (0 to 1) that noise does not reach
WHOLE_PICTURE = 0.5  # changed part from which on the camera, not a thing, has moved
DARK = 0.1  # mean luma under which a covered camera and a dark room look alike
VERY_DARK = 0.05
UNCOVER_FACTOR = 1.5  # hysteresis: contrast that ends "covered", relative to what begins it

HUES = (  # upper end in degrees, name
    (15, "red"),
    (45, "orange"),
    (70, "yellow"),
    (165, "green"),
    (195, "turquoise"),
    (255, "blue"),
    (290, "purple"),
    (345, "pink"),
    (361, "red"),
)


@dataclass(frozen=True, eq=False)
class View:
    """A picture as the reflexes see it.

    cells: float32 [48, 64, 3], 0 to 1. luma: float32 [48, 64], 0 to 1. brightness: mean luma.
    contrast: largest standard deviation of the three colours, 0 to 0.5. size: rows and columns of
    the picture itself.
    """

    stamp_ns: int
    cells: np.ndarray
    luma: np.ndarray
    brightness: float
    contrast: float
    size: tuple[int, int]


@dataclass(frozen=True)
class Motion:
    """Changed part of the picture (0 to 1) and where it is, seen from the camera."""

    fraction: float
    place: str  # "on the left", "in the middle", "on the right", "everywhere", or "" for none


def look(picture: Picture) -> View:
    """Sample a picture, uint8 RGB [height, width, 3] or grey [height, width], of any size.

    Raises `InputError` where it cannot be decoded or is no such picture.
    """
    rgb = picture.rgb()
    if rgb.dtype != np.uint8 or rgb.ndim not in (2, 3) or (rgb.ndim == 3 and rgb.shape[2] != 3):
        raise InputError(
            f"picture has shape {rgb.shape} of {rgb.dtype}; it must be uint8 [height, width, 3]"
        )
    height, width = rgb.shape[:2]
    if height == 0 or width == 0:
        raise InputError(f"picture is empty ({width} x {height}); it needs at least one pixel")
    rows = _grid(height, ROWS * SAMPLES_PER_CELL)
    columns = _grid(width, COLUMNS * SAMPLES_PER_CELL)
    samples = rgb[rows[:, None], columns]
    if samples.ndim == 2:
        samples = np.repeat(samples[:, :, None], 3, axis=2)
    n = SAMPLES_PER_CELL
    blocks = samples.reshape(ROWS, n, COLUMNS, n, 3)
    cells = blocks.sum(axis=(1, 3), dtype=np.float32) / np.float32(255 * n * n)
    luma = cells @ LUMA
    return View(
        stamp_ns=picture.stamp_ns,
        cells=cells,
        luma=luma,
        brightness=float(luma.mean()),
        contrast=float(cells.std(axis=(0, 1)).max()),
        size=(height, width),
    )


def _grid(length: int, count: int) -> np.ndarray:
    """Middles of `count` equal parts of [0, length), as indices."""
    return (np.arange(count) * 2 + 1) * length // (2 * count)


def motion(before: View, now: View, light_jump: float) -> Motion | None:
    """What changed between two views, beside an even change of brightness.

    None where that cannot be told: the size of the picture changed, or the light jumped.
    """
    if before.size != now.size or abs(now.brightness - before.brightness) >= light_jump:
        return None
    change = now.luma - before.luma
    change -= np.median(change)  # exposure and slow light move every cell alike
    moved = np.abs(change) > CELL_CHANGE
    fraction = float(moved.mean())
    if fraction == 0.0:
        return Motion(0.0, "")
    if fraction > WHOLE_PICTURE:
        return Motion(fraction, "everywhere")
    centre = float(np.nonzero(moved)[1].mean() + 0.5) / COLUMNS
    if centre < 0.4:
        return Motion(fraction, "on the left")
    return Motion(fraction, "on the right" if centre > 0.6 else "in the middle")


def is_covered(view: View, was_covered: bool, flat_contrast: float) -> bool:
    """Whether a view shows nothing: one even surface, or darkness with little in it.

    A very dark picture may have twice the contrast, for what noise and a gap in the cover leave.
    What was covered stays so until the contrast is clearly higher.
    """
    limit = flat_contrast * (2.0 if view.brightness < VERY_DARK else 1.0)
    return view.contrast < limit * (UNCOVER_FACTOR if was_covered else 1.0)


def dominant_colour(view: View) -> str:
    """Name of the colour that more than half of the picture has, or "" where no colour has."""
    high = view.cells.max(axis=2)
    spread = high - view.cells.min(axis=2)
    coloured = (high > 0.2) & (spread > 0.35 * high)
    if coloured.mean() <= 0.5:
        return ""
    red, green, blue = np.moveaxis(view.cells[coloured], 1, 0)
    top, width = high[coloured], spread[coloured]
    hue = np.where(
        top == red,
        (green - blue) / width % 6,
        np.where(top == green, (blue - red) / width + 2, (red - green) / width + 4),
    )
    names = np.searchsorted([end for end, _ in HUES], hue * 60, side="right")
    counts: dict[str, int] = {}
    for index, count in enumerate(np.bincount(names, minlength=len(HUES))):
        counts[HUES[index][1]] = counts.get(HUES[index][1], 0) + int(count)
    name = max(counts, key=lambda colour: counts[colour])
    return name if counts[name] > 0.5 * coloured.size else ""

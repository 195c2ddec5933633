"""A picture on its way to the vision encoder: scaled, cut, normalised, laid out in patches.

Numpy and Pillow only, so that every runtime shares it. Sizes are (width, height) in pixels, as
Pillow has them, and a grid is (columns, rows).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.part_configs import SliceConfig

Size = tuple[int, int]


@dataclass(frozen=True)
class Cut:
    """How a picture is shown: whole, scaled to `source`, and, if `grid` is not None, also as
    columns x rows cells of the size `cell`."""

    source: Size
    grid: Size | None = None
    cell: Size | None = None

    @property
    def slices(self) -> int:
        """How many slices the vision encoder sees; each becomes 64 embeddings."""
        return 1 if self.grid is None else 1 + self.grid[0] * self.grid[1]


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice. pixels: float32 [3, patch, patch * rows * columns], its patches from left to
    right and from top to bottom, one beside the other."""

    pixels: np.ndarray
    rows: int
    columns: int

    @property
    def patches(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True, eq=False)
class Patches:
    """A batch of B slices, padded at their ends to P patches: what the vision stage is given.

    pixels: float32 [B, 3, patch, patch * P]. position_ids: int64 [B, P], places in the encoder's
    position table. cells: int64 [B, P, 2], each patch's column and row. mask: bool [B, P], false
    at padding; None if nothing is padded.
    """

    pixels: np.ndarray
    position_ids: np.ndarray
    cells: np.ndarray
    mask: np.ndarray | None


def cut(size: Size, max_slices: int, config: SliceConfig) -> Cut:
    """Plan a picture of `size` as at most `max_slices` cells beside the whole.

    Raises:
        InputError: a side of the picture, or `max_slices`, is below one.
    """
    if min(size) < 1:
        raise InputError(f"a picture of {size[0]} x {size[1]} pixels has nothing to see in it")
    if max_slices < 1:
        raise InputError(f"max_slices is {max_slices}; 1 shows the picture whole, more cut it")
    grid = best_grid(size, max_slices, config.resolution)
    if grid is None:
        return Cut(scaled(size, config))
    width, height = (_nearest_multiple(side, by) // by for side, by in zip(size, grid, strict=True))
    source = scaled(size, config, enlarge=False)
    return Cut(source, grid, scaled((width, height), config))


def best_grid(size: Size, max_slices: int, resolution: int) -> Size | None:
    """The grid whose proportions are nearest to the picture's, None if it needs none.

    A picture has as many cells as `resolution` squared fits into its area, give or take one.
    """
    width, height = size
    cells = min(math.ceil(width * height / resolution**2), max_slices)
    if cells <= 1:
        return None
    counts = [n for n in (cells - 1, cells, cells + 1) if 1 < n <= max_slices]
    grids = [
        (columns, n // columns) for n in counts for columns in range(1, n + 1) if not n % columns
    ]
    # Of two that are equally near, the first: the one of fewer cells, then of fewer columns.
    return min(grids, key=lambda grid: abs(math.log(width / height) - math.log(grid[0] / grid[1])))


def scaled(size: Size, config: SliceConfig, enlarge: bool = True) -> Size:
    """The size with about the area of `resolution` squared, whose sides are multiples of a patch.

    A smaller picture keeps its size, up to that rounding, if it is not to `enlarge`.
    """
    width, height = size
    if enlarge or width * height > config.resolution**2:
        proportion = width / height
        height = int(config.resolution / math.sqrt(proportion))
        width = int(height * proportion)
    return _nearest_multiple(width, config.patch), _nearest_multiple(height, config.patch)


def _nearest_multiple(length: int, of: int) -> int:
    """At least one; half way between two, the even one (as `round` has it)."""
    return max(round(length / of) * of, of)


def slices(picture: np.ndarray, max_slices: int, config: SliceConfig) -> list[Slice]:
    """The whole picture, then its cells row by row.

    Args:
        picture: uint8 [height, width, 3] RGB, or [height, width] grey.

    Raises:
        InputError: it is not such a picture, or is empty; or `max_slices` is below one.
    """
    image = Image.fromarray(_rgb(picture))
    plan = cut(image.size, max_slices, config)
    shown = [_normalised(image.resize(plan.source, Image.Resampling.BICUBIC), config)]
    if plan.grid is not None and plan.cell is not None:
        (columns, rows), (width, height) = plan.grid, plan.cell
        whole = image.resize((columns * width, rows * height), Image.Resampling.BICUBIC)
        for top in range(0, rows * height, height):
            for left in range(0, columns * width, width):
                cell = whole.crop((left, top, left + width, top + height))
                shown.append(_normalised(cell, config))
    return shown


def _rgb(picture: np.ndarray) -> np.ndarray:
    """The picture with three channels, checked."""
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise InputError(
            f"a picture is {picture.dtype} {list(picture.shape)}; it must be uint8"
            " [height, width, 3] (RGB) or [height, width] (grey), and not empty"
        )
    return np.ascontiguousarray(picture)


def _normalised(image: Image.Image, config: SliceConfig) -> Slice:
    """(x / 255 - mean) / std, laid out in patches."""
    mean, std = (np.asarray(x, dtype=np.float32) for x in (config.mean, config.std))
    pixels = (np.asarray(image, dtype=np.float32) / 255 - mean) / std
    rows, columns = (side // config.patch for side in pixels.shape[:2])
    grid = pixels.reshape(rows, config.patch, columns, config.patch, 3)
    patches = grid.transpose(4, 1, 0, 2, 3).reshape(3, config.patch, -1)
    return Slice(patches, rows, columns)


def batch(shown: Sequence[Slice], side: int, patches: int | None = None) -> Patches:
    """Put slices of any sizes into one batch.

    Args:
        shown: one slice or more.
        side: of the encoder's table of positions.
        patches: pad to so many (a runtime compiles a few sizes only); None: to the largest slice.

    Raises:
        InputError: there is no slice, or one has more patches than are asked for.
    """
    if not shown:
        raise InputError("a batch of pictures has at least one slice; there is nothing to encode")
    most = max(found.patches for found in shown)
    if patches is not None and patches < most:
        raise InputError(f"a slice has {most} patches, more than the {patches} to pad to")
    total = patches or most
    channels, patch, _ = shown[0].pixels.shape
    pixels = np.zeros((len(shown), channels, patch, patch * total), dtype=np.float32)
    ids = np.zeros((len(shown), total), dtype=np.int64)
    cells = np.zeros((len(shown), total, 2), dtype=np.int64)
    mask = np.zeros((len(shown), total), dtype=bool)
    for i, found in enumerate(shown):
        pixels[i, :, :, : found.pixels.shape[2]] = found.pixels
        ids[i, : found.patches] = position_ids(found.rows, found.columns, side)
        rows, columns = np.indices((found.rows, found.columns))
        cells[i, : found.patches] = np.stack([columns, rows], axis=-1).reshape(-1, 2)
        mask[i, : found.patches] = True
    return Patches(pixels, ids, cells, None if mask.all() else mask)


def position_ids(rows: int, columns: int, side: int) -> np.ndarray:
    """Where the patches of a slice lie in a table of side x side positions: int64 [rows * columns].

    NaViT (Dehghani et al., 2023): row k of n lies at k / n of the height and has the id of the row
    of the table there; columns likewise.
    """
    return (_places(rows, side)[:, None] * side + _places(columns, side)).reshape(-1)


@lru_cache(maxsize=1024)
def _places(count: int, side: int) -> np.ndarray:
    """floor(k / count * side) for k below `count`, in the float32 arithmetic the weights know.

    Where k / count is a multiple of 1 / side, rounding decides: with 25 patches a side, 4 of them
    get the neighbour's place of what whole numbers would give.
    """
    bounds = _float32_range(1 / side, 1 / side, side - 1)
    fractions = _float32_range(0.0, float(np.float32(1) / np.float32(count)), count)
    return np.searchsorted(bounds, fractions, side="right")


def _float32_range(start: float, step: float, count: int) -> np.ndarray:
    """start + k * step as torch.arange rounds it on x86, on every machine.

    Pairs of vectors of eight are counted on from their first element, which is rounded to float32;
    what is left at the end is counted from `start`.
    """
    k = np.arange(count)
    first = k // 8 * 8
    in_vectors = np.float32(start + first * step).astype(np.float64) + (k - first) * step
    paired = k < count // 16 * 16
    return np.where(paired, in_vectors, start + k * step).astype(np.float32)

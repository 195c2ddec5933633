"""Pictures that are far from the drawn world, for a robot to say that it does not know them.

Backgrounds are muted and calm; these are not, and there is no thing in them.
"""

from __future__ import annotations

import math

import numpy as np

from minicpmo_ros.media.opencv import opencv
from minicpmo_ros.media.world.backgrounds import smooth, spectral

CLUTTER = ("static", "colour_static", "photograph", "leaves")
HELD_OUT_CLUTTER = ("blocks", "plasma", "scribble")


def clutter(kind: str, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """uint8 RGB [height, width, 3] with no thing in it: one of CLUTTER or HELD_OUT_CLUTTER."""
    rgb = _CLUTTER[kind](rng, width, height)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def _static(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return np.repeat(_grains(rng, width, height, 1), 3, axis=2)


def _colour_static(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return _grains(rng, width, height, 3)


def _grains(rng: np.random.Generator, width: int, height: int, channels: int) -> np.ndarray:
    """White noise, its grains one to four pixels wide."""
    wide = int(rng.integers(1, 5))
    shape = (-(-height // wide), -(-width // wide), channels)
    grains = 255.0 * rng.random(shape, dtype=np.float32)
    return np.repeat(np.repeat(grains, wide, 0), wide, 1)[:height, :width]


def _photograph(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Patches of photographic noise, one over the other."""
    picture = _coloured_noise(rng, width, height)
    texture = _coloured_noise(rng, width, height)
    for _ in range(int(rng.integers(4, 12))):
        shift = int(rng.integers(height)), int(rng.integers(width))
        patch = np.roll(texture, shift, (0, 1)) * rng.uniform(0.3, 1.3, 3)
        mask = np.zeros((height, width), np.uint8)
        opencv().fillPoly(mask, [_outline(rng, width, height)], 1)
        picture = np.where(mask[:, :, None] > 0, patch, picture)
    return picture


def _leaves(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Evenly coloured patches of all sizes that hide one another, as surfaces in photographs do."""
    cv2 = opencv()
    picture = np.full((height, width, 3), rng.uniform(10, 245), np.float32)
    roughness = np.zeros((height, width), np.float32)
    colourful = rng.uniform(0.0, 0.5)
    for _ in range(int(rng.integers(30, 60))):
        colour = rng.uniform(10, 245) * (1.0 + colourful * rng.uniform(-1.0, 1.0, 3))
        outline = _outline(rng, width, height)
        cv2.fillPoly(picture, [outline], colour.tolist())
        cv2.fillPoly(roughness, [outline], float(rng.uniform(0, 120)))
    grain = roughness * (spectral(rng, width, height, 1.0) - 0.5)
    return picture + grain[:, :, None]


def _outline(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """int32 [corners, 2]: an uneven form at a random spot, small ones more often."""
    corners = int(rng.integers(6, 11))
    angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
    reach = height * math.exp(rng.uniform(math.log(0.1), math.log(0.6)))
    radii = reach * rng.uniform(0.4, 1.0, (corners, 1))
    points = rng.random(2) * (width, height) + radii * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points.astype(np.int32)


def _coloured_noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    noise = spectral(rng, width, height, float(rng.uniform(0.7, 1.5)), channels=3) - 0.5
    grey = noise.mean(axis=2, keepdims=True)
    # From nearly grey to as colourful as paint.
    noise = 1.5 * grey + rng.uniform(0.1, 1.0) * (noise - grey)
    return 255.0 * np.clip(rng.uniform(0.3, 0.7) + 1.5 * noise, 0.0, 1.0)


def _blocks(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A broken video stream: blocks of any colour."""
    side = max(2, height // int(rng.integers(6, 20)))
    coarse = rng.random((-(-height // side), -(-width // side), 3), dtype=np.float32)
    return 255.0 * np.repeat(np.repeat(coarse, side, 0), side, 1)[:height, :width]


def _plasma(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Smooth swirls through every hue."""
    hills = smooth(rng, width, height, 4, channels=3)
    return 127.5 + 127.5 * np.sin(2 * math.pi * (rng.uniform(1, 2.5) * hills + rng.random(3)))


def _scribble(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Lines of any colour all over a plain ground."""
    picture = np.full((height, width, 3), rng.uniform(0, 255, 3), np.uint8)
    for _ in range(int(rng.integers(15, 40))):
        points = np.cumsum(rng.normal(0, 0.12 * height, (12, 2)), axis=0)
        points += rng.random(2) * (width, height)
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        opencv().polylines(picture, [points.astype(np.int32)], False, colour, 1, 16)
    return picture.astype(np.float32)


_CLUTTER = {
    "static": _static,
    "colour_static": _colour_static,
    "photograph": _photograph,
    "leaves": _leaves,
    "blocks": _blocks,
    "plasma": _plasma,
    "scribble": _scribble,
}

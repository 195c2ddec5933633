"""What stands behind the things: textures made of numbers.

They are muted, so that no colour of a thing is taken for one of them; and nothing in them
has the form of a thing.
"""

from __future__ import annotations

import colorsys
import math
from functools import lru_cache

import numpy as np

from minicpmo_ros.media.opencv import opencv

BACKGROUNDS = (
    "plain",
    "gradient",
    "stripes",
    "checks",
    "blobs",
    "value_noise",
    "photographic",
    "wood",
    "brick",
)
HELD_OUT_BACKGROUNDS = ("dots", "marble", "mosaic", "zigzag")

_MOST_SATURATION = 0.33


@lru_cache(maxsize=128)
def background(kind: str, seed: int, width: int, height: int) -> np.ndarray:
    """uint8 RGB [height, width, 3], read-only: one of BACKGROUNDS or HELD_OUT_BACKGROUNDS."""
    rng = np.random.default_rng(seed)
    low, high = _two_muted(rng, kind)
    mix = _FIELDS[kind](rng, width, height)
    rgb = low + (high - low) * mix[:, :, None]
    if kind in ("blobs", "value_noise", "photographic"):
        # Parts of a photograph differ in hue, not only in brightness.
        rgb += 28.0 * (smooth(rng, width, height, 5, channels=3) - 0.5)
    picture: np.ndarray = np.clip(rgb, 0, 255).astype(np.uint8)
    picture.flags.writeable = False
    return picture


def _two_muted(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Two float RGB colours, 0 to 255, not too unlike."""
    hue, saturation, value = rng.random(), rng.uniform(0, _MOST_SATURATION), rng.uniform(0.18, 0.95)
    if kind in ("wood", "brick"):
        hue, saturation = rng.uniform(0.03, 0.12), rng.uniform(0.15, 0.38)
        value = rng.uniform(0.25, 0.8)
    step = rng.uniform(0.2, 0.5) if kind == "photographic" else rng.uniform(0.08, 0.3)
    other = value + step if value < 0.5 else value - step
    second = (hue + rng.normal(0, 0.06)) % 1.0, saturation * rng.uniform(0.6, 1.1), other
    return tuple(  # type: ignore[return-value]
        255.0 * np.array(colorsys.hsv_to_rgb(*hsv)) for hsv in ((hue, saturation, value), second)
    )


def _grid(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """x [1, width] and y [height, 1] of pixel centres, both in heights of the picture."""
    x = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / height
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    return x, y


def smooth(
    rng: np.random.Generator, width: int, height: int, cells: int, channels: int = 1
) -> np.ndarray:
    """Soft random hills, about `cells` to the height, 0 to 1."""
    across = max(2, round(cells * width / height))
    coarse = rng.random((max(2, cells), across, channels), dtype=np.float32)
    hills: np.ndarray = opencv().resize(coarse, (width, height), interpolation=2)  # cubic
    return np.clip(hills, 0.0, 1.0)


def spectral(
    rng: np.random.Generator, width: int, height: int, exponent: float, channels: int = 1
) -> np.ndarray:
    """Noise with an amplitude of 1 / frequency ** exponent, as photographs have; about 0 to 1."""
    shape = (channels, height, width // 2 + 1)
    spectrum = rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)
    frequency = np.hypot(
        np.fft.rfftfreq(width)[None, :] * width, np.fft.fftfreq(height)[:, None] * height
    )
    frequency[0, 0] = math.inf
    field = np.fft.irfft2(spectrum / frequency**exponent, s=(height, width))
    field = 0.5 + 0.22 * field / field.std(axis=(1, 2), keepdims=True)
    field = np.clip(field, 0.0, 1.0).astype(np.float32)
    return field[0] if channels == 1 else np.ascontiguousarray(field.transpose(1, 2, 0))


def _along(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """How far each pixel lies along a random direction, in heights of the picture."""
    x, y = _grid(width, height)
    angle = rng.uniform(0, 2 * math.pi)
    return x * math.cos(angle) + y * math.sin(angle)


def _plain(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return np.zeros((height, width), np.float32)


def _gradient(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    along = _along(rng, width, height)
    return (along - along.min()) / np.ptp(along)


def _wave(phase: np.ndarray, hard: bool) -> np.ndarray:
    """0 to 1 with a period of 1: a sine, or a band with soft edges."""
    sine = np.sin(2 * math.pi * phase)
    return np.clip(0.5 + (4.0 if hard else 0.5) * sine, 0.0, 1.0)


def _stripes(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return _wave(_along(rng, width, height) / rng.uniform(0.05, 0.3), rng.random() < 0.6)


def _checks(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    x, y = _grid(width, height)
    angle, period = rng.uniform(0, math.pi / 2), rng.uniform(0.12, 0.4)
    u = (x * math.cos(angle) + y * math.sin(angle)) / period
    v = (y * math.cos(angle) - x * math.sin(angle)) / period
    return np.clip(0.5 + 4.0 * np.sin(2 * math.pi * u) * np.sin(2 * math.pi * v), 0.0, 1.0)


def _blobs(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    hills = smooth(rng, width, height, int(rng.integers(3, 7)))
    return np.clip(0.5 + 2.5 * (hills - 0.5), 0.0, 1.0)


def _value_noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    octaves = [smooth(rng, width, height, cells) / 2**i for i, cells in enumerate((3, 6, 12, 24))]
    return np.sum(octaves, axis=0) / 1.875


def _photographic(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return spectral(rng, width, height, float(rng.uniform(0.9, 1.4)))


def _wood(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    x, y = _grid(width, height)
    if rng.random() < 0.5:
        x, y = y, x
    rings = 0.25 * smooth(rng, width, height, 4) + x * rng.uniform(3, 7) + 0.3 * y
    grain = smooth(rng, width, height, max(2, height // 3))
    return np.asarray(0.75 * _wave(rings * 2.0, hard=False) + 0.25 * grain)


def _brick(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    x, y = _grid(width, height)
    tall, long = rng.uniform(0.08, 0.14), rng.uniform(0.2, 0.34)
    row = np.floor(y / tall).astype(int)
    u = x / long + 0.5 * (row % 2)
    column = np.floor(u).astype(int)
    shade = rng.uniform(0.0, 0.45, 4096)[(row * 61 + column * 17) % 4096]
    mortar = ((y / tall) % 1.0 < 0.13) | (u % 1.0 < 0.055)
    return np.where(mortar, 1.0, shade).astype(np.float32)


def _dots(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    x, y = _grid(width, height)
    # Too small to be taken for balls.
    period = rng.uniform(0.07, 0.11)
    u, v = (x / period) % 1.0 - 0.5, (y / period) % 1.0 - 0.5
    return np.clip(5.0 * (0.3 - np.hypot(u, v)) + 0.5, 0.0, 1.0)


def _marble(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    veins = _along(rng, width, height) * rng.uniform(1.5, 4) + 2.0 * _value_noise(
        rng, width, height
    )
    return 1.0 - np.abs(np.sin(math.pi * veins)) ** 0.5


def _mosaic(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    x, y = _grid(width, height)
    count = int(rng.integers(40, 120))
    seeds_x, seeds_y = rng.random(count) * width / height, rng.random(count)
    nearest = np.argmin((x[..., None] - seeds_x) ** 2 + (y[..., None] - seeds_y) ** 2, axis=-1)
    return rng.random(count)[nearest].astype(np.float32)


def _zigzag(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    x, y = _grid(width, height)
    period = rng.uniform(0.08, 0.2)
    return _wave((y + 0.5 * period * np.abs((x / period) % 2.0 - 1.0)) / period, hard=True)


_FIELDS = {
    "plain": _plain,
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "blobs": _blobs,
    "value_noise": _value_noise,
    "photographic": _photographic,
    "wood": _wood,
    "brick": _brick,
    "dots": _dots,
    "marble": _marble,
    "mosaic": _mosaic,
    "zigzag": _zigzag,
}

"""How an episode looks: what is behind the things, the light, the paint, and the camera."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minicpmo_ros.media.opencv import opencv
from minicpmo_ros.media.world.backgrounds import BACKGROUNDS, HELD_OUT_BACKGROUNDS, background
from minicpmo_ros.media.world.clutter import CLUTTER, HELD_OUT_CLUTTER, clutter
from minicpmo_ros.media.world.things import COLOURS

NOISES = ("none", "grain", "colour_grain", "shot")
HELD_OUT_NOISES = ("salt", "rows", "blotches")

# Hue in degrees, saturation, value; and by how much hue and the other two may differ from it.
PAINTS = {
    "red": (358.0, 0.86, 0.84),
    "green": (132.0, 0.76, 0.66),
    "blue": (221.0, 0.84, 0.86),
    "yellow": (54.0, 0.86, 0.98),
    "white": (0.0, 0.0, 0.97),
    "black": (0.0, 0.0, 0.10),
    "purple": (285.0, 0.72, 0.68),
    "orange": (26.0, 0.92, 0.98),
}
_HUE_SPREAD = 2.0
_VALUE_SPREAD = 0.04


def _rgb(hue_degrees: float, saturation: float, value: float) -> tuple[float, float, float]:
    rgb = colorsys.hsv_to_rgb(hue_degrees / 360.0 % 1.0, saturation, min(1.0, value))
    return (255.0 * rgb[0], 255.0 * rgb[1], 255.0 * rgb[2])


PURE_PAINTS = tuple(_rgb(*PAINTS[colour]) for colour in COLOURS)

# The backdrop is drawn this much larger on each side, in heights, for the camera to shake over.
SHAKE_ROOM = 0.03


class Backdrop(NamedTuple):
    """rgb: uint8 [height, width, 3], to be drawn on. dx, dy: by how many pixels all is moved."""

    rgb: np.ndarray
    dx: int
    dy: int


@dataclass(frozen=True)
class Look:
    """The look of one episode; equal looks draw equal pictures.

    background, seed: which of the backgrounds and which one of its kind. paints: float RGB 0 to 255
    of every colour, in the order of COLOURS. gain, tint: of the light, a factor for all and one a
    channel; it swells by the fraction `drift` over drift_period_s, from drift_phase on. blur: sigma
    in heights of the picture. noise, noise_level: kind, and standard deviation of 0 to 255.
    vignette: the fraction of light missing in the corners. shake: how far the camera moves, a
    standard deviation in heights. jpeg_quality: 1 to 100, 0 for none.
    """

    background: str
    seed: int
    paints: tuple[tuple[float, float, float], ...] = PURE_PAINTS
    gain: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    drift: float = 0.0
    drift_period_s: float = 20.0
    drift_phase: float = 0.0
    blur: float = 0.0
    noise: str = "none"
    noise_level: float = 0.0
    vignette: float = 0.0
    shake: float = 0.0
    jpeg_quality: int = 0

    @classmethod
    def random(cls, rng: np.random.Generator, held_out: bool = False) -> Look:
        """held_out: with a background and a noise of kinds that training never shows."""
        kinds = HELD_OUT_BACKGROUNDS if held_out else BACKGROUNDS
        noises = HELD_OUT_NOISES if held_out else NOISES
        return cls(
            background=kinds[rng.integers(len(kinds))],
            seed=int(rng.integers(2**32)),
            paints=_paints(rng),
            gain=float(rng.uniform(0.8, 1.14)),
            tint=tuple(float(f) for f in rng.uniform(0.96, 1.04, 3)),  # type: ignore[arg-type]
            drift=float(rng.uniform(0.0, 0.08)),
            drift_period_s=float(rng.uniform(8.0, 40.0)),
            drift_phase=float(rng.random()),
            blur=float(rng.uniform(0.0, 0.008)) if rng.random() < 0.7 else 0.0,
            noise=noises[rng.integers(len(noises))],
            noise_level=float(rng.uniform(1.0, 9.0)),
            vignette=float(rng.uniform(0.0, 0.2)),
            shake=float(rng.uniform(0.0, 0.008)) if rng.random() < 0.6 else 0.0,
            jpeg_quality=int(rng.integers(25, 96)) if rng.random() < 0.85 else 0,
        )

    @classmethod
    def noise_picture(
        cls, rng: np.random.Generator, held_out: bool = False, size: tuple[int, int] = (128, 96)
    ) -> np.ndarray:
        """uint8 RGB [height, width, 3] far from this world, as some camera sees it.

        size: (width, height) in pixels. held_out: of kinds that training never shows.
        """
        kinds = HELD_OUT_CLUTTER if held_out else CLUTTER
        picture = clutter(kinds[rng.integers(len(kinds))], rng, *size)
        return cls.random(rng, held_out).seen(picture, 0.0, rng)

    def backdrop(self, width: int, height: int, rng: np.random.Generator) -> Backdrop:
        """A fresh copy of what is behind the things, and how far the camera has shaken."""
        room = round(SHAKE_ROOM * height)
        whole = background(self.background, self.seed, width + 2 * room, height + 2 * room)
        dx, dy = 0, 0
        if self.shake:
            dx, dy = (
                int(min(max(round(d), -room), room))
                for d in rng.normal(0.0, self.shake * height, 2)
            )
        left, top = room - dx, room - dy
        return Backdrop(whole[top : top + height, left : left + width].copy(), dx, dy)

    def light(self, t_s: float) -> np.ndarray:
        """float32 [3]: the factor of red, green and blue at t_s."""
        swell = math.sin(2.0 * math.pi * (t_s / self.drift_period_s + self.drift_phase))
        factor = self.gain * (1.0 + self.drift * swell)
        return (factor * np.array(self.tint)).astype(np.float32)

    def seen(self, rgb: np.ndarray, t_s: float, rng: np.random.Generator) -> np.ndarray:
        """uint8 RGB [height, width, 3]: the picture in this light, through this camera."""
        height, width = rgb.shape[:2]
        seen = rgb.astype(np.float32)
        seen *= _lens(width, height, self.vignette) * self.light(t_s)
        if self.blur * height > 0.2:
            seen = opencv().GaussianBlur(seen, (0, 0), self.blur * height)
        _NOISE[self.noise](seen, self.noise_level, rng)
        picture: np.ndarray = np.clip(seen, 0.0, 255.0, out=seen).astype(np.uint8)
        if not self.jpeg_quality:
            return picture
        cv2 = opencv()
        quality = [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality]
        # OpenCV takes the first channel for blue; it matters, as JPEG keeps blue less well.
        code = cv2.imencode(".jpg", picture[:, :, ::-1], quality)[1]
        return np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[:, :, ::-1])


def _paints(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """A paint of every colour, near the pure one."""
    return tuple(
        _rgb(
            hue + rng.uniform(-_HUE_SPREAD, _HUE_SPREAD),
            saturation * rng.uniform(0.92, 1.0),
            value + rng.uniform(-_VALUE_SPREAD, _VALUE_SPREAD),
        )
        for hue, saturation, value in (PAINTS[colour] for colour in COLOURS)
    )


@lru_cache(maxsize=256)
def _lens(width: int, height: int, vignette: float) -> np.ndarray:
    """float32 [height, width, 1]: the share of light that reaches each pixel."""
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    return (1.0 - 0.5 * vignette * (x * x + y * y))[:, :, None]


def _no_noise(rgb: np.ndarray, level: float, rng: np.random.Generator) -> None:
    pass


def _grain(rgb: np.ndarray, level: float, rng: np.random.Generator) -> None:
    rgb += level * rng.standard_normal((*rgb.shape[:2], 1), np.float32)


def _colour_grain(rgb: np.ndarray, level: float, rng: np.random.Generator) -> None:
    rgb += level * rng.standard_normal(rgb.shape, np.float32)


def _shot(rgb: np.ndarray, level: float, rng: np.random.Generator) -> None:
    """Noise of counted light: its deviation grows with the root of the brightness."""
    rgb += level * np.sqrt(rgb / 128.0) * rng.standard_normal(rgb.shape, np.float32)


def _salt(rgb: np.ndarray, level: float, rng: np.random.Generator) -> None:
    """Single pixels fully dark or fully bright."""
    drawn = rng.random(rgb.shape[:2], dtype=np.float32)
    share = level / 600.0
    rgb[drawn < share] = 0.0
    rgb[drawn > 1.0 - share] = 255.0


def _rows(rgb: np.ndarray, level: float, rng: np.random.Generator) -> None:
    """Rows of pixels brighter or darker, as from mains hum."""
    rgb += level * rng.standard_normal((rgb.shape[0], 1, 1), np.float32)


def _blotches(rgb: np.ndarray, level: float, rng: np.random.Generator) -> None:
    """Coarse coloured patches, as of a sensor in the dark."""
    height, width = rgb.shape[:2]
    coarse = rng.standard_normal((max(2, height // 6), max(2, width // 6), 3), np.float32)
    rgb += level * opencv().resize(coarse, (width, height))


_NOISE = {
    "none": _no_noise,
    "grain": _grain,
    "colour_grain": _colour_grain,
    "shot": _shot,
    "salt": _salt,
    "rows": _rows,
    "blotches": _blotches,
}

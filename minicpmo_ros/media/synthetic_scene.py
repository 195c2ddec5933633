"""A drawn room in which things move: the camera of a machine that has none.

The picture is a function of its stamp and size alone, so two runs see the same, and a test can say
what should be where.
"""

from __future__ import annotations

import math
from datetime import datetime, timezone

import numpy as np

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.media.opencv import opencv
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S

BALL_RGB = (225, 60, 45)
BOX_RGB = (40, 150, 70)
DISC_RGB = (50, 90, 210)

_BALL_PERIOD_S = 6.0
_BOX_PERIOD_S = 10.0
_DISC_PERIOD_S = 15.0
_SUBPIXEL_BITS = 4


class SyntheticScene:
    """A red ball that bounces to and fro, a green box on the floor, a blue disc, and a clock."""

    def __init__(self, width: int = 640, height: int = 480) -> None:
        if width < 64 or height < 48:
            raise ConfigError(
                f"a synthetic picture of {width}x{height} is too small: at least 64x48"
            )
        self._width, self._height = width, height
        self._background = _room(width, height)

    def ball_centre(self, stamp_ns: int) -> tuple[float, float]:
        """(x, y) in pixels of the ball: there and back in 6 s, four bounces on the way."""
        phase = _phase(stamp_ns, _BALL_PERIOD_S)
        along = 1.0 - abs(2.0 * phase - 1.0)
        bounce = abs(math.sin(4.0 * math.pi * phase))
        return (
            self._width * (0.1 + 0.8 * along),
            self._height * (0.82 - 0.45 * bounce),
        )

    def render(self, stamp_ns: int) -> np.ndarray:
        """uint8 RGB [height, width, 3] of what the camera sees at stamp_ns (ROS time)."""
        cv2 = opencv()
        rgb: np.ndarray = self._background.copy()
        width, height = self._width, self._height
        turn = 2.0 * math.pi * _phase(stamp_ns, _DISC_PERIOD_S)
        disc = (width * (0.5 + 0.3 * math.cos(turn)), height * (0.27 + 0.1 * math.sin(turn)))
        self._circle(rgb, disc, height * 0.07, DISC_RGB)
        slide = math.sin(2.0 * math.pi * _phase(stamp_ns, _BOX_PERIOD_S))
        left, top, side = width * (0.43 + 0.3 * slide), height * 0.68, height * 0.14
        corners = np.array(
            [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]
        )
        cv2.fillConvexPoly(rgb, _fixed(corners), BOX_RGB, cv2.LINE_AA, _SUBPIXEL_BITS)
        self._circle(rgb, self.ball_centre(stamp_ns), height * 0.085, BALL_RGB)
        self._clock(rgb, stamp_ns)
        return rgb

    def _circle(
        self,
        rgb: np.ndarray,
        centre: tuple[float, float],
        radius: float,
        colour: tuple[int, int, int],
    ) -> None:
        cv2 = opencv()
        x, y = _fixed(np.array(centre))
        size = int(radius * (1 << _SUBPIXEL_BITS))
        cv2.circle(rgb, (int(x), int(y)), size, colour, -1, cv2.LINE_AA, _SUBPIXEL_BITS)

    def _clock(self, rgb: np.ndarray, stamp_ns: int) -> None:
        """The stamp as UTC time of day, to the millisecond, in the upper left corner."""
        cv2 = opencv()
        seconds, rest_ns = divmod(stamp_ns, NS_PER_S)
        day = datetime.fromtimestamp(seconds % 86_400, tz=timezone.utc)
        text = f"{day:%H:%M:%S}.{rest_ns // NS_PER_MS:03d}"
        scale = self._height / 480.0
        place = (round(12 * scale), round(34 * scale))
        thickness = max(1, round(2 * scale))
        cv2.putText(
            rgb, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), thickness, cv2.LINE_AA
        )


def _phase(stamp_ns: int, period_s: float) -> float:
    """Where in its period a motion is, 0 to 1; integers, as floats cannot hold ROS time."""
    period_ns = round(period_s * NS_PER_S)
    return (stamp_ns % period_ns) / period_ns


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _room(width: int, height: int) -> np.ndarray:
    """A wall with soft plaster and a planked floor, the same at every start."""
    cv2 = opencv()
    rng = np.random.default_rng(20)
    grain = rng.normal(0.0, 1.0, (height, width, 1))
    stains = cv2.resize(
        rng.normal(0.0, 1.0, (12, 16)), (width, height), interpolation=cv2.INTER_CUBIC
    )[:, :, None]
    wall = np.array([196.0, 190.0, 178.0]) + 9.0 * stains + 3.0 * grain
    floor_row = round(height * 0.72)
    floor = np.array([140.0, 104.0, 70.0]) + 5.0 * stains + 4.0 * grain
    # Planks run towards a vanishing point above the floor.
    y, x = np.mgrid[0:height, 0:width]
    depth = np.maximum((y - height * 0.55) / height, 0.02)
    plank = np.floor((x / width - 0.5) / depth * 1.6).astype(int)
    floor += 14.0 * (plank % 2)[:, :, None]
    room = np.where((y < floor_row)[:, :, None], wall, floor)
    room[floor_row - 3 : floor_row + 3] = (92.0, 78.0, 66.0)
    return np.clip(room, 0, 255).astype(np.uint8)

"""What the reflex brain hears: loudness, the background's level, and a sudden loud sound.

Levels are RMS in dB relative to full scale (dBFS, int16; a full-scale sine has -3 dBFS), taken in
windows of 50 ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.timeline.unit import Unit

WINDOW_S = 0.05
FLOOR_DBFS = -96.0
FOLLOW = 0.2  # part of the difference that the background takes over in a unit
ENOUGH_WINDOWS = 4  # windows that a level must rest on
ONSET_WINDOWS = 6  # a sound is sudden if it was quieter within so many windows before
QUIETEST_BACKGROUND_DBFS = -60.0  # digital silence is no measure of what is loud
VOICE_MARGIN_DB = 12.0  # what a sound must stand out from speech that goes on; stress stays under
SPEECH_PERCENTILE = 75  # of the windows within speech, which has pauses

Interval = tuple[int, int]


@dataclass(frozen=True)
class Bang:
    """A sudden loud sound: when its window began, how loud it was."""

    stamp_ns: int
    level_dbfs: float
    above_background_db: float


@dataclass(frozen=True)
class Heard:
    """A unit's sound. None where there was too little sound to say."""

    level_dbfs: float | None
    voice_dbfs: float | None
    background_dbfs: float | None
    bang: Bang | None


def window_size(rate_hz: int) -> int:
    """Samples of a window."""
    return max(1, int(rate_hz * WINDOW_S))


def level_dbfs(samples: np.ndarray) -> float:
    """RMS level of int16 samples [n]; FLOOR_DBFS for silence and for no samples."""
    if len(samples) == 0:
        return FLOOR_DBFS
    return float(_dbfs(np.square(samples, dtype=np.float32).mean()))


def window_levels(unit: Unit) -> np.ndarray:
    """Level of each whole 50 ms window, float64 [windows]; NaN where sound was filled or muted."""
    window = window_size(unit.rate_hz)
    count = len(unit.samples) // window
    if unit.muted:
        return np.full(count, np.nan)
    squares = np.square(unit.samples[: count * window].reshape(count, window), dtype=np.float32)
    levels = _dbfs(squares.mean(axis=1))
    for start, stop in unit.filled:
        levels[max(0, start // window) : max(0, -(-stop // window))] = np.nan
    return levels


def _dbfs(mean_square: np.ndarray | np.floating) -> np.ndarray:
    power = np.maximum(np.asarray(mean_square, np.float64) / 32768.0**2, 1e-12)
    return np.maximum(10.0 * np.log10(power), FLOOR_DBFS)


def _speech_level(levels: np.ndarray, before: float) -> float:
    """Level of speech from its windows, or that of before where there are too few."""
    if len(levels) < ENOUGH_WINDOWS:
        return before
    return float(np.percentile(levels, SPEECH_PERCENTILE))


class Hearing:
    """Follows the background from unit to unit. `own`: when the robot itself may have sounded."""

    def __init__(self, loud_jump_db: float, loud_dbfs: float) -> None:
        self._jump_db = loud_jump_db
        self._loud_dbfs = loud_dbfs
        self._background: float | None = None
        self._person = FLOOR_DBFS
        self._robot = FLOOR_DBFS
        self._tail = np.zeros(0)

    def forget_tail(self) -> None:
        """The next unit does not follow the last one without a gap."""
        self._tail = np.zeros(0)

    def hear(self, unit: Unit, voice: Iterable[Interval], own: Iterable[Interval]) -> Heard:
        """Take in a unit; neither people's speech nor the robot's own raises the background."""
        levels = window_levels(unit)
        by_person = self._within(unit, len(levels), voice)
        by_robot = self._within(unit, len(levels), own)
        valid = ~np.isnan(levels)
        quiet = levels[valid & ~by_person & ~by_robot]
        if len(quiet) >= ENOUGH_WINDOWS and self._background is None:
            self._background = float(np.median(quiet))
        # Apart: behind a good echo canceller the robot's own voice is silence.
        person = _speech_level(levels[valid & by_person], self._person)
        robot = _speech_level(levels[valid & by_robot & ~by_person], self._robot)
        expected = np.full(len(levels), -np.inf)
        expected[by_robot] = max(self._robot, robot)
        expected[by_person] = np.maximum(expected[by_person], max(self._person, person))
        bang = self._find_bang(unit, levels, expected)
        self._person, self._robot = person, robot
        if len(quiet) >= ENOUGH_WINDOWS and self._background is not None:
            self._background += FOLLOW * (float(np.median(quiet)) - self._background)
        self._tail = levels[-ONSET_WINDOWS:]
        voiced = levels[valid & by_person & ~by_robot]
        return Heard(
            level_dbfs=float(np.median(levels[valid])) if valid.any() else None,
            voice_dbfs=float(np.median(voiced)) if len(voiced) >= ENOUGH_WINDOWS else None,
            background_dbfs=self._background,
            bang=bang,
        )

    @staticmethod
    def _within(unit: Unit, count: int, intervals: Iterable[Interval]) -> np.ndarray:
        """Which windows an interval touches, bool [count]."""
        inside = np.zeros(count, bool)
        window_ns = window_size(unit.rate_hz) * NS_PER_S // unit.rate_hz
        for start_ns, stop_ns in intervals:
            first = max(0, (start_ns - unit.start_ns) // window_ns)
            inside[first : max(0, -((unit.start_ns - stop_ns) // window_ns))] = True
        return inside

    def _find_bang(self, unit: Unit, levels: np.ndarray, expected_dbfs: np.ndarray) -> Bang | None:
        """The loudest window that is loud enough, and that came suddenly.

        expected_dbfs: level of the speech that goes on in a window, -inf without any.
        """
        if self._background is None or not len(levels):
            return None
        background = max(self._background, QUIETEST_BACKGROUND_DBFS)
        least = max(background + self._jump_db, self._loud_dbfs)
        spoken = np.maximum(expected_dbfs, least) + VOICE_MARGIN_DB
        loud = levels >= np.where(np.isfinite(expected_dbfs), spoken, least)
        before = np.concatenate([self._tail, levels])
        offset = len(self._tail)
        found: int | None = None
        for i in np.nonzero(loud)[0]:
            past = before[max(0, offset + i - ONSET_WINDOWS) : offset + i]
            past = past[~np.isnan(past)]
            sudden = len(past) > 0 and levels[i] - past.min() >= self._jump_db / 2
            if sudden and (found is None or levels[i] > levels[found]):
                found = int(i)
        if found is None:
            return None
        window = window_size(unit.rate_hz)
        return Bang(
            stamp_ns=unit.start_ns + found * window * NS_PER_S // unit.rate_hz,
            level_dbfs=float(levels[found]),
            above_background_db=float(levels[found]) - background,
        )

"""A small world around the reflex brain: a person, a room, a camera, and the robot's own speech."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from minicpmo_ros.brains.api import SessionSetup, Surroundings, UnitResult, VoiceSpan
from minicpmo_ros.brains.reflex import ReflexBrain, ReflexConfig
from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import NS_PER_S, Action, Picture, WordMark
from minicpmo_ros.timeline.unit import Unit

T0_NS = 1_700_000_000 * NS_PER_S
RATE_HZ = 16_000
ROOM = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8) // 2 + 60


def room(second: int = 0, light: float = 1.0) -> np.ndarray:
    """A still room with furniture, uint8 [120, 160, 3]."""
    return (np.kron(ROOM, np.ones((10, 10, 1))) * light).astype(np.uint8)


def walker(column: int) -> Callable[[int], np.ndarray]:
    """The room with somebody who stands at a column of 160 and is gone every other second."""

    def picture(second: int) -> np.ndarray:
        rgb = room()
        if second % 2:
            rgb[30:110, column : column + 20] = 250
        return rgb

    return picture


def dark(second: int = 0) -> np.ndarray:
    """What a covered camera gives: dark noise."""
    return np.random.default_rng(second).integers(0, 8, (120, 160, 3), dtype=np.uint8)


def undecodable(second: int) -> Picture:
    def decode() -> np.ndarray:
        raise InputError("encoding 'yuv9000' is unknown; use rgb8")

    return Picture(T0_NS + second * NS_PER_S, decode)


@dataclass(frozen=True)
class Utterance:
    data: np.ndarray
    rate_hz: int
    words: tuple[WordMark, ...]
    text: str


class Tones:
    """A synthesiser that says every character as 50 ms of tone at 24 kHz."""

    def __init__(self, samples_per_char: int = 1200) -> None:
        self.samples_per_char = samples_per_char

    def speak(self, text: str) -> Utterance:
        samples = self.samples_per_char * len(text)
        data = (3000 * np.sin(np.arange(samples) * 0.1)).astype(np.int16)
        return Utterance(data, 24_000, (WordMark(text, 0, samples),), text)


@dataclass
class World:
    """Runs a brain second by second, as the session does; times in seconds since its start."""

    config: ReflexConfig = field(default_factory=ReflexConfig)
    synthesiser: object = field(default_factory=Tones)
    camera: Callable[[int], object] = room
    persons: list[tuple[float, float]] = field(default_factory=list)
    sounds: list[tuple[float, float, float]] = field(default_factory=list)  # from, to, dBFS
    background_dbfs: float = -60.0
    echo: bool = False  # voice activity hears the robot itself
    camera_lost_ms: Callable[[int], float] = lambda second: 0.0
    mic_lost_ms: Callable[[int], float] = lambda second: 0.0
    filled: tuple[tuple[int, int], ...] = ()
    second: int = 0

    def __post_init__(self) -> None:
        self.brain = ReflexBrain(self.config, self.synthesiser)
        self.brain.open(SessionSetup())
        self.spoken: list[tuple[float, float]] = []
        self.shift_ns = 0

    def run(self, seconds: int) -> list[UnitResult]:
        return [self.step() for _ in range(seconds)]

    def step(self) -> UnitResult:
        k = self.second
        self.second += 1
        spans = self.persons + ([(a, b + 0.2) for a, b in self.spoken] if self.echo else [])
        voice = tuple(
            VoiceSpan(self.ns(a), None if b > k + 1 else self.ns(b))
            for a, b in spans
            if a < k + 1 and b > k
        )
        around = Surroundings(
            voice=voice,
            robot_speaking=any(b > k + 1 for _, b in self.spoken),
            camera_lost_ms=self.camera_lost_ms(k),
            mic_lost_ms=self.mic_lost_ms(k),
        )
        unit = Unit(
            k, self.ns(k), self.ns(k + 1), self._samples(k), RATE_HZ, self._pictures(k), self.filled
        )
        result = self.brain.unit(unit, around)
        length_s = sum(len(s.data) / s.rate_hz for s in result.speech)
        if length_s:
            self.spoken.append((k + 1, k + 1 + length_s))
        return result

    def interrupt(self, heard: str) -> None:
        """Somebody stops the robot now."""
        start, _ = self.spoken[-1]
        self.spoken[-1] = (start, self.second)
        self.brain.interrupt(heard)

    def ns(self, seconds: float) -> int:
        return T0_NS + self.shift_ns + round(seconds * NS_PER_S)

    def _samples(self, k: int) -> np.ndarray:
        noise = np.random.default_rng(k).normal(size=RATE_HZ)
        t = k + np.arange(RATE_HZ) / RATE_HZ
        amplitude = np.full(RATE_HZ, 10 ** (self.background_dbfs / 20))
        for a, b, dbfs in [*((a, b, -28.0) for a, b in self.persons), *self.sounds]:
            amplitude[(t >= a) & (t < b)] = 10 ** (dbfs / 20)
        return np.clip(noise * amplitude * 32768, -32768, 32767).astype(np.int16)

    def _pictures(self, k: int) -> tuple[Picture, ...]:
        given = self.camera(k)
        if given is None:
            return ()
        if isinstance(given, Picture):
            return (given,)
        return (Picture.of(self.ns(k + 0.5), given),)


def spoken(results: list[UnitResult]) -> list[str]:
    """Texts of the units that speak."""
    return [r.text for r in results if r.action is Action.SPEAK]


def alerts(results: list[UnitResult]) -> list[tuple[int, str, bool]]:
    """(unit, kind, active) of all alerts."""
    return [(k, a.kind, a.active) for k, r in enumerate(results) for a in r.alerts]


@dataclass(frozen=True)
class Kit:
    """What the tests build with."""

    World = World
    Tones = Tones
    room = staticmethod(room)
    walker = staticmethod(walker)
    dark = staticmethod(dark)
    undecodable = staticmethod(undecodable)
    spoken = staticmethod(spoken)
    alerts = staticmethod(alerts)


@pytest.fixture
def kit() -> Kit:
    return Kit()

"""Bags and sessions for tests of replay: sound, pictures, a brain and ears that follow a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from minicpmo_ros.brains.api import Brain, SessionSetup, Speech, Surroundings, UnitResult
from minicpmo_ros.brains.session import OmniSession
from minicpmo_ros.brains.settings import SessionConfig
from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.messages import (
    NS_PER_S,
    SPEECH_RATE_HZ,
    Action,
    AudioChunk,
    VoiceActivity,
    WordMark,
)
from minicpmo_ros.replay.bag import BagWriter, open_bag
from minicpmo_ros.timeline.unit import Unit
from minicpmo_ros.topics import MIC
from minicpmo_ros.wire import Message

START_NS = 1_700_000_000 * NS_PER_S
SPOKEN_WORDS = ("one", "two", "three", "four", "five")


def at(seconds: float) -> int:
    return START_NS + round(seconds * NS_PER_S)


def write_bag(
    path: Path, seconds: float, pictures: bool = True, without: tuple[float, float] = (0.0, 0.0)
) -> Path:
    """Noise on the microphone and, if wanted, a small picture, ten times a second.

    without: seconds [from, to) in which the microphone gives nothing.
    """
    rng = np.random.default_rng(3)
    with BagWriter(path) as bag:
        for i in range(round(seconds * 10)):
            if pictures:
                shade = np.full((48, 64, 3), i % 200, np.uint8)
                bag.write_jpeg(at(i / 10), at(i / 10), encode_jpeg(shade))
            data = rng.integers(-99, 99, 1600).astype(np.int16)
            if not without[0] <= i / 10 < without[1]:
                bag.write(MIC, at((i + 1) / 10), AudioChunk(at(i / 10), data, sequence=i))
    return path


def speech() -> Speech:
    """2.5 s of speech, a word each half second; every sample tells which one it is."""
    step = SPEECH_RATE_HZ // 2
    marks = tuple(WordMark(w, i * step, (i + 1) * step) for i, w in enumerate(SPOKEN_WORDS))
    data = (1 + np.arange(5 * step) % 30_000).astype(np.int16)
    return Speech(data, " ".join(SPOKEN_WORDS), marks)


class ScriptedBrain(Brain):
    """Speaks at the end of the units of its script; looks at pictures if it is curious."""

    name = "scripted"

    def __init__(self, speaks_in: Sequence[int] = (), curious: bool = False) -> None:
        self._speaks_in = set(speaks_in)
        self._curious = curious

    def open(self, setup: SessionSetup) -> None: ...

    def unit(self, unit: Unit, around: Surroundings) -> UnitResult:
        reason = f"{unit.filled_ms:.0f} ms filled, robot speaks: {around.robot_speaking}"
        if self._curious and unit.pictures:
            reason += f", brightness {unit.pictures[-1].rgb().mean():.0f}"
        if unit.index in self._speaks_in:
            return UnitResult(Action.SPEAK, " ".join(SPOKEN_WORDS), True, reason, (speech(),))
        return UnitResult(Action.LISTEN, reason=reason)

    def close(self) -> None: ...


class ScriptedEars:
    """Hears speech from and to given times of the recording, in seconds."""

    def __init__(self, spans: Sequence[tuple[float, float]] = ()) -> None:
        self._spans = [(at(start), at(stop)) for start, stop in spans]
        self.reset()

    def reset(self) -> None:
        self.speaking_since_ns: int | None = None
        self.voiced_until_ns = 0
        self._segment = 0

    def feed(self, chunk: AudioChunk) -> list[VoiceActivity]:
        span = next((s for s in self._spans if s[0] < chunk.end_ns and chunk.stamp_ns < s[1]), None)
        if span is not None:
            self.voiced_until_ns = min(chunk.end_ns, span[1])
        speaking = span is not None
        if speaking == (self.speaking_since_ns is not None):
            return []
        self._segment += speaking
        stamp_ns = span[0] if span is not None else self.voiced_until_ns
        self.speaking_since_ns = span[0] if span is not None else None
        return [VoiceActivity(stamp_ns, speaking, self._segment, 0.5, -30.0)]


def scripted(
    speaks_in: Sequence[int] = (),
    voice: Sequence[tuple[float, float]] = (),
    curious: bool = False,
    timings: bool = False,
) -> Callable[[Callable[[Message], None], Callable[[str, str], None]], OmniSession]:
    """Makes the session of a script, as `replay_offline` wants it."""
    return lambda publish, report: OmniSession(
        ScriptedBrain(speaks_in, curious),
        SessionConfig(timings=timings),
        publish,
        ScriptedEars(voice),
        report=report,
    )


def read(path: Path) -> dict[str, list[tuple[int, Message]]]:
    """(log time, message) of a bag by topic name."""
    found: dict[str, list[tuple[int, Message]]] = {}
    with open_bag(path) as bag:
        for topic, log_ns, message in bag.messages():
            found.setdefault(topic.name, []).append((log_ns, message))  # type: ignore[arg-type]
    return found

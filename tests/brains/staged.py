"""A session with a scripted brain, ears that any loud sound wakes, and all that it published."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minicpmo_ros.brains.api import (
    Brain,
    Capabilities,
    SessionSetup,
    Speech,
    Surroundings,
    UnitResult,
)
from minicpmo_ros.brains.session import OmniSession
from minicpmo_ros.brains.settings import SessionConfig
from minicpmo_ros.messages import NS_PER_S, Action, AudioChunk, VoiceActivity, WordMark
from tests.brains.held import HeldWorker

T0 = 1_700_000_000 * NS_PER_S
LISTEN = UnitResult(Action.LISTEN, reason="nothing")


def talk(seconds: float, text: str = "one two three four", end: bool = True) -> UnitResult:
    n = round(seconds * 24_000)
    words = text.split()
    step = n // len(words)
    marks = tuple(WordMark(w, i * step, (i + 1) * step) for i, w in enumerate(words))
    speech = Speech(np.full(n, 1000, np.int16), text, marks)
    return UnitResult(Action.SPEAK, text, end, "talks", (speech,))


class Script(Brain):
    """Gives the results it was told to, one a unit; then listens."""

    name = "script"
    capabilities = Capabilities(modes=("duplex",), languages=("en", "zh"))

    def __init__(self, *results: UnitResult | Exception) -> None:
        self.results = list(results)
        self.seen: list[tuple[int, Surroundings]] = []
        self.interrupted: list[str] = []
        self.opened: list[SessionSetup] = []

    def open(self, setup: SessionSetup) -> None:
        self.opened.append(setup)

    def unit(self, unit, around):
        self.seen.append((unit.index, around))
        result = self.results.pop(0) if self.results else LISTEN
        if isinstance(result, Exception):
            raise result
        return result

    def interrupt(self, heard: str) -> None:
        self.interrupted.append(heard)

    def close(self) -> None: ...


class LoudIsVoice:
    """Voice detector of the tests: a chunk with any sample above 100 is voice."""

    def __init__(self) -> None:
        self.speaking_since_ns: int | None = None
        self.voiced_until_ns = 0
        self._segment = 0

    def feed(self, chunk: AudioChunk) -> list[VoiceActivity]:
        loud = bool(np.abs(chunk.data).max(initial=0) > 100)
        if loud:
            self.voiced_until_ns = chunk.end_ns
        if loud == (self.speaking_since_ns is not None):
            return []
        self.speaking_since_ns = chunk.stamp_ns if loud else None
        self._segment += loud
        return [VoiceActivity(chunk.stamp_ns, loud, self._segment, float(loud), -20.0)]

    def reset(self) -> None:
        self.speaking_since_ns = None


@dataclass
class Utterance:
    text: str
    data: np.ndarray = field(default_factory=lambda: np.ones(24_000, np.int16))
    words: tuple[WordMark, ...] = ()
    rate_hz: int = 24_000


class Parrot:
    def speak(self, text: str) -> Utterance:
        words = text.split()
        step = 24_000 // len(words)
        marks = tuple(WordMark(w, i * step, (i + 1) * step) for i, w in enumerate(words))
        return Utterance(text, words=marks)


class Stage:
    """A session that is fed 100 ms of sound at a time and remembers all it published."""

    def __init__(self, *results, synthesiser=None, brain=None, **config) -> None:
        self.brain = brain or Script(*results)
        self.out: list = []
        self.problems: list[tuple[str, str]] = []
        self.worker = HeldWorker()
        self.session = OmniSession(
            self.brain,
            SessionConfig(**config),
            self.out.append,
            LoudIsVoice(),
            synthesiser,
            self.worker,
            report=lambda kind, text: self.problems.append((kind, text)),
        )
        self.now = T0
        self.session.open()
        self.session.start(self.now)

    def hear(self, seconds: float, loud: bool = False) -> None:
        for _ in range(round(seconds * 10)):
            chunk = AudioChunk(self.now, np.full(1600, 1000 if loud else 0, np.int16))
            self.now = chunk.end_ns
            self.session.audio(chunk, self.now)

    def of(self, kind: type) -> list:
        return [message for message in self.out if isinstance(message, kind)]


def at(seconds: float) -> int:
    return T0 + round(seconds * NS_PER_S)

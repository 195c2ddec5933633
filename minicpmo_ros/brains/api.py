"""What the omni node talks to: the interface that every brain implements.

A brain is called from one thread at a time. It sees units in order, never reads a clock, and gives
the same results for the same units: that is what makes a recorded conversation replay to the same
bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import numpy as np

from minicpmo_ros.errors import BrainError
from minicpmo_ros.messages import (
    SPEECH_RATE_HZ,
    Action,
    Picture,
    Severity,
    StageTiming,
    WordMark,
)
from minicpmo_ros.timeline.unit import Unit


@dataclass(frozen=True)
class Capabilities:
    """What a brain can do; the session refuses the rest with a clear message."""

    modes: tuple[str, ...] = ("duplex",)
    languages: tuple[str, ...] = ("en",)
    takes_prompt: bool = False
    chats: bool = False
    speaks: bool = True


@dataclass(frozen=True)
class SessionSetup:
    """How a conversation starts. voice: the name of one of `Brain.voices`; empty: its own."""

    mode: str = "duplex"
    prompt: str = ""
    language: str = "en"
    seed: int = 0
    voice: str = ""


@dataclass(frozen=True)
class VoiceSpan:
    """A stretch of speech, in ns of ROS time; stop_ns is None while it goes on."""

    start_ns: int
    stop_ns: int | None


@dataclass(frozen=True)
class Surroundings:
    """What the session knows beside the unit itself.

    voice: stretches of speech that overlap the unit. robot_speaking: speech decided earlier still
    sounds at the unit's end. camera_lost_ms, mic_lost_ms: how long nothing has come; 0: all is
    well.
    """

    voice: tuple[VoiceSpan, ...] = ()
    robot_speaking: bool = False
    camera_lost_ms: float = 0.0
    mic_lost_ms: float = 0.0


@dataclass(frozen=True, eq=False)
class Speech:
    """Speech to be played: int16 [samples] mono at rate_hz with its words."""

    data: np.ndarray
    text: str = ""
    words: tuple[WordMark, ...] = ()
    rate_hz: int = SPEECH_RATE_HZ


@dataclass(frozen=True)
class AlertNote:
    """An alert that a brain raises (active) or clears; evidence are capture stamps in ns."""

    kind: str
    severity: Severity
    text: str
    active: bool = True
    evidence: tuple[int, ...] = ()
    lifetime_s: float = 30.0


@dataclass(frozen=True, eq=False)
class UnitResult:
    """What a brain made of a unit.

    speech: pieces in the order in which they sound. rest: those that follow them, made while they
    are asked for, on the brain's thread and before it settles; it is closed where nobody wants
    more, and may raise.
    """

    action: Action
    text: str = ""
    end_of_turn: bool = False
    reason: str = ""
    speech: tuple[Speech, ...] = ()
    rest: Generator[Speech, None, None] | None = None
    alerts: tuple[AlertNote, ...] = ()
    p_listen: float = float("nan")
    p_speak: float = float("nan")
    kv_length: int = 0
    kv_capacity: int = 0
    timings: tuple[StageTiming, ...] = ()


@dataclass(frozen=True)
class VoiceNotes:
    """What is not well with the recording of a voice, or was done to it.

    voice: its name. notes: a sentence each; empty: all is well.
    """

    voice: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join(self.notes)


@dataclass(frozen=True, eq=False)
class ChatRequest:
    """A turn-based question: text, pictures (oldest first), sound int16 [samples] at 16 kHz."""

    text: str
    pictures: tuple[Picture, ...] = ()
    sound: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))
    max_tokens: int = 0


Progress = Callable[[str, float], None]
"""Told what is being loaded ("vision") and how much of the whole is done, 0 to 1."""


def no_progress(what: str, share: float) -> None: ...


class Brain(ABC):
    """A brain: open, units one after the other, close. Raises `BrainError` when it cannot.

    progress: set before `open`, which may call it from its own thread as often as it likes.
    trouble: why the brain decides, but not as it should; empty when all is well. name,
    capabilities and trouble are read from any thread and may change with `open` and `unit`. about:
    what runs, on what, in how much memory, in one line; empty where there is nothing to say. voice:
    what its speech is made with; voice_trouble: why not with what it should be; both in words.
    voice_notes: of the voice that it speaks in.
    """

    name: str = "brain"
    capabilities: Capabilities = Capabilities()
    progress: Progress = staticmethod(no_progress)
    trouble: str = ""
    about: str = ""
    voice: str = ""
    voice_trouble: str = ""
    voice_notes: VoiceNotes = VoiceNotes()

    @abstractmethod
    def open(self, setup: SessionSetup) -> None:
        """Begin a session; a second call begins a new one and forgets the last.

        Only the first call may take long: what it loads stays loaded until `close`.
        """

    @abstractmethod
    def unit(self, unit: Unit, around: Surroundings) -> UnitResult:
        """Decide on one closed unit."""

    def picture(self, picture: Picture) -> None:  # noqa: B027 - an optional hook
        """A picture of the unit that is still open: a brain may start on it early."""

    def settle(self) -> None:  # noqa: B027 - an optional hook
        """Work that can wait until the unit's results are published."""

    def interrupt(self, heard: str) -> None:  # noqa: B027 - an optional hook
        """The robot's turn was cut off after these words."""

    def remember(self, heard: str, unit: int) -> None:  # noqa: B027 - an optional hook
        """The brain's own speech was cut off: of the turn whose last speech came of this unit, only
        these words have sounded, and nothing of what it decided to say after that; -1: nothing of
        all that it has said since it was last told. Comes with every interruption, behind
        `interrupt`; a brain that remembers what it says keeps no more than was heard.
        """

    def voices(self) -> tuple[str, ...]:
        """Names that `SessionSetup.voice` may have, from any thread. Raises ConfigError where they
        cannot be read."""
        return ()

    def chat(self, request: ChatRequest) -> Iterator[str]:
        """Answer a question piece by piece."""
        raise BrainError(f"the brain '{self.name}' cannot chat; use one that can, such as local")

    @abstractmethod
    def close(self) -> None:
        """Free everything; open may be called again."""

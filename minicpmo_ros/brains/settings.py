"""How a session behaves, whatever brain it has, and what it asks of its ears."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from minicpmo_ros.brains.api import SessionSetup
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import AudioChunk, Severity, VoiceActivity
from minicpmo_ros.timeline.config import TimelineConfig


class VoiceSense(Protocol):
    """Finds speech in sound; `minicpmo_ros.media.voice.VoiceDetector` is one."""

    def feed(self, chunk: AudioChunk) -> list[VoiceActivity]: ...

    def reset(self) -> None: ...

    @property
    def speaking_since_ns(self) -> int | None:
        """Start of the stretch of speech that goes on."""

    @property
    def voiced_until_ns(self) -> int:
        """End of the last piece of sound that was voice; 0 before any."""


@dataclass(frozen=True)
class SessionConfig:
    """Raises ConfigError for a value out of its range.

    barge_in_ms: voice over the robot's speech for so long stops it; 0 turns that off.
    playback_delay_ms: from a unit's end to the first sample of a turn that begins with it.
    chunk_s: longest piece of speech in one message. backlog: units that may wait for the brain
    before the next is skipped. interrupting_severity: lowest severity of a new alert that cuts off
    what is being said; None: none does. timings: put wall times into decisions (not for exact
    replay).
    """

    timeline: TimelineConfig = field(default_factory=TimelineConfig)
    setup: SessionSetup = field(default_factory=SessionSetup)
    barge_in_ms: int = 200
    playback_delay_ms: int = 0
    chunk_s: float = 1.0
    backlog: int = 3
    interrupting_severity: Severity | None = Severity.CRITICAL
    timings: bool = True

    def __post_init__(self) -> None:
        for name, low, high in (
            ("barge_in_ms", 0, 5_000),
            ("playback_delay_ms", 0, 5_000),
            ("chunk_s", 0.1, 30.0),
            ("backlog", 1, 60),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}={value}: must lie between {low} and {high}")


@dataclass(frozen=True)
class Interrupted:
    """Outcome of an interruption. heard: words of the cut turn that had sounded."""

    success: bool
    message: str
    epoch: int
    heard: str

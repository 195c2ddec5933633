"""A whole session from plain settings: what the omni node and every replay start with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minicpmo_ros.brains import reflex
from minicpmo_ros.brains.api import Brain, SessionSetup
from minicpmo_ros.brains.reflex import ReflexBrain, ReflexConfig
from minicpmo_ros.brains.session import OmniSession
from minicpmo_ros.brains.settings import SessionConfig
from minicpmo_ros.brains.work import Worker
from minicpmo_ros.errors import ConfigError, DeviceError
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.media.voice import VoiceConfig, VoiceDetector
from minicpmo_ros.timeline.timeline import TimelineConfig
from minicpmo_ros.wire import Message


@dataclass(frozen=True)
class OmniSettings:
    """The omni node's parameters by the same names (see nodes/parameters.py for their meaning)."""

    brain: str = "reflex"
    mode: str = "duplex"
    prompt: str = ""
    language: str = "en"
    seed: int = 0
    late_ms: int = 80
    jitter_ms: int = 20
    lost_ms: int = 1000
    pictures_per_unit: int = 1
    barge_in_ms: int = 200
    playback_delay_ms: int = 0
    voice_detector: str = "auto"
    voice: str = "en-us"
    voice_rate_wpm: int = 170
    spoken_severity: str = "warning"
    brain_backlog: int = 3
    publish_timings: bool = True

    def session_config(self) -> SessionConfig:
        return SessionConfig(
            timeline=TimelineConfig(
                late_ms=self.late_ms,
                jitter_ms=self.jitter_ms,
                lost_ms=self.lost_ms,
                pictures_per_unit=self.pictures_per_unit,
            ),
            setup=SessionSetup(self.mode, self.prompt, self.language, self.seed),
            barge_in_ms=self.barge_in_ms,
            playback_delay_ms=self.playback_delay_ms,
            backlog=self.brain_backlog,
            timings=self.publish_timings,
        )


def build_session(
    settings: OmniSettings,
    publish: Callable[[Message], None],
    worker: Worker | None = None,
    report: Callable[[str, str], None] = lambda kind, text: None,
) -> OmniSession:
    """The session with its brain, ears and voice; raises ConfigError, DeviceError or BrainError.

    Without a speech synthesiser the robot still listens, decides and raises alerts; `report` says
    so.
    """
    synthesiser = _synthesiser(settings, report)
    return OmniSession(
        make_brain(settings, synthesiser),
        settings.session_config(),
        publish,
        VoiceDetector(VoiceConfig(detector=settings.voice_detector)),
        synthesiser,
        worker,
        report,
    )


def make_brain(settings: OmniSettings, synthesiser: reflex.Synthesiser | None) -> Brain:
    """The brain of the name in settings; raises ConfigError for one that there is not."""
    makers: dict[str, Callable[[], Brain]] = {
        "reflex": lambda: ReflexBrain(
            ReflexConfig(spoken_severity=settings.spoken_severity), synthesiser
        ),
    }
    if settings.brain not in makers:
        raise ConfigError(f"brain '{settings.brain}': there are {', '.join(makers)}")
    return makers[settings.brain]()


def _synthesiser(
    settings: OmniSettings, report: Callable[[str, str], None]
) -> reflex.Synthesiser | None:
    try:
        return Synthesiser(voice=settings.voice, rate_wpm=settings.voice_rate_wpm)
    except DeviceError as error:
        report("speech", f"the robot cannot speak: {error}")
        return None

"""A whole session from plain settings: what the omni node and every replay start with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minicpmo_ros.brains import reflex
from minicpmo_ros.brains.api import Brain, SessionSetup
from minicpmo_ros.brains.fallback import FallbackBrain
from minicpmo_ros.brains.reflex import ReflexBrain, ReflexConfig
from minicpmo_ros.brains.session import OmniSession
from minicpmo_ros.brains.settings import SessionConfig
from minicpmo_ros.brains.work import Worker
from minicpmo_ros.errors import ConfigError, DeviceError
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.media.voice import VoiceConfig, VoiceDetector
from minicpmo_ros.messages import Severity
from minicpmo_ros.timeline.timeline import TimelineConfig
from minicpmo_ros.wire import Message


@dataclass(frozen=True)
class OmniSettings:
    """The omni node's parameters by the same names (see nodes/parameters.py for their meaning)."""

    brain: str = "local"
    mode: str = "duplex"
    prompt: str = ""
    language: str = "en"
    seed: int = 0
    late_ms: int = 80
    jitter_ms: int = 20
    lost_ms: int = 1000
    pictures_per_unit: int = 1
    barge_in_ms: int = -1
    playback_delay_ms: int = 0
    voice_detector: str = "auto"
    voice: str = "en-us"
    voice_rate_wpm: int = 170
    spoken_severity: str = "warning"
    interrupting_severity: str = "critical"
    brain_backlog: int = 3
    publish_timings: bool = True
    checkpoint: str = "nano"
    recipe: str = ""
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    reference_voice: str = ""
    voices: str = ""
    speaker: str = ""
    synthesiser_fallback: bool = True
    speech_chunks: str = "8 17 25"
    speech_lead_ms: int = 280
    speech_steps: int = 0
    forgets_unheard: bool = True
    prompt_file: str = ""
    scene: str = "omni"
    kv_capacity: int = 0
    window: str = "auto"
    window_high_tokens: int = 0
    window_low_tokens: int = 0
    window_units: int = 0
    window_previous_tokens: int = -1
    temperature: float = 0.7
    length_penalty: float = 1.1
    listen_scale: float = 1.0
    forced_listens: int = -1
    max_slices: int = 0
    audio_overlap_s: int = 10
    turn_end_ms: int = 600
    unasked_after_s: float = 3.0
    reference_compat: bool = False
    fallback: str = "reflex"
    fallback_failures: int = 3
    fallback_retry_units: int = 10

    def session_config(self) -> SessionConfig:
        return SessionConfig(
            timeline=TimelineConfig(
                late_ms=self.late_ms,
                jitter_ms=self.jitter_ms,
                lost_ms=self.lost_ms,
                pictures_per_unit=self.pictures_per_unit,
            ),
            setup=SessionSetup(self.mode, self.prompt, self.language, self.seed, self.speaker),
            barge_in_ms=barge_in(self.brain, self.barge_in_ms),
            playback_delay_ms=self.playback_delay_ms,
            backlog=self.brain_backlog,
            interrupting_severity=_severity(self.interrupting_severity),
            timings=self.publish_timings,
        )


def barge_in(brain: str, wanted_ms: int) -> int:
    """Voice over the robot's speech that stops it, in ms; wanted_ms: -1 for the brain's own.

    The reflex brain stops for any voice. A model tells a "mhm" from an interruption, a second later
    at most: for it, only voice that is longer than a "mhm" stops the robot at once.
    """
    if wanted_ms >= 0:
        return wanted_ms
    return 200 if brain == "reflex" else 800


def _severity(name: str) -> Severity | None:
    if name.upper() not in Severity.__members__ and name != "never":
        raise ConfigError(
            f"interrupting_severity is '{name}'; it must be one of"
            f" {', '.join(one.name.lower() for one in Severity)}, never"
        )
    return None if name == "never" else Severity[name.upper()]


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
        "local": lambda: _local(settings, synthesiser),
        "reflex": lambda: ReflexBrain(
            ReflexConfig(
                spoken_severity=settings.spoken_severity,
                interrupting_severity=settings.interrupting_severity,
            ),
            synthesiser,
        ),
    }
    if settings.brain not in makers:
        raise ConfigError(f"brain '{settings.brain}': there are {', '.join(makers)}")
    brain = makers[settings.brain]()
    if settings.brain == "reflex" or settings.fallback == "none":
        return brain
    return FallbackBrain(
        brain, makers["reflex"](), settings.fallback_failures, settings.fallback_retry_units
    )


def _local(settings: OmniSettings, synthesiser: reflex.Synthesiser | None) -> Brain:
    from minicpmo_ros.brains.local import LocalBrain, LocalConfig  # only where it is wanted

    names = {
        *(
            "checkpoint",
            "recipe",
            "device",
            "precision",
            "threads",
            "reference_voice",
            "prompt_file",
            "scene",
        ),
        *("pictures_per_unit", "kv_capacity", "window", "window_high_tokens"),
        *("window_low_tokens", "window_units", "window_previous_tokens", "temperature"),
        *("length_penalty", "listen_scale", "forced_listens", "max_slices", "audio_overlap_s"),
        *("turn_end_ms", "unasked_after_s", "reference_compat", "voices", "speech_chunks"),
        *("speech_lead_ms", "speech_steps", "forgets_unheard", "synthesiser_fallback"),
    }
    return LocalBrain(
        LocalConfig.of(**{name: getattr(settings, name) for name in names}), synthesiser
    )


def _synthesiser(
    settings: OmniSettings, report: Callable[[str, str], None]
) -> reflex.Synthesiser | None:
    try:
        return Synthesiser(voice=settings.voice, rate_wpm=settings.voice_rate_wpm)
    except DeviceError as error:
        report("speech", f"the robot cannot speak: {error}")
        return None

"""What can be set about the reflex brain: thresholds of its senses, manners of its speech."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import Severity

NEVER = "never"
SPOKEN_SEVERITIES = ("info", "notice", "warning", "critical", NEVER)

_RANGES: dict[str, tuple[float, float, str]] = {
    "endpoint_ms": (50, 3000, "milliseconds"),
    "min_turn_ms": (0, 10_000, "milliseconds"),
    "own_voice_tail_ms": (0, 5000, "milliseconds"),
    "flat_contrast": (0.001, 0.2, "of full scale"),
    "light_jump": (0.05, 1.0, "of full scale"),
    "motion_fraction": (0.001, 1.0, "of the picture"),
    "loud_jump_db": (3, 80, "dB"),
    "loud_dbfs": (-90, 0, "dBFS"),
    "camera_lost_ms": (100, 600_000, "milliseconds"),
    "microphone_lost_ms": (100, 600_000, "milliseconds"),
    "confirm_units": (1, 60, "units"),
    "refractory_s": (0, 3600, "seconds"),
    "lifetime_s": (1, 86_400, "seconds"),
    "stillness_s": (1, 86_400, "seconds"),
}


@dataclass(frozen=True)
class ReflexConfig:
    """Settings of `ReflexBrain`; raises `ConfigError` when one is out of its range.

    endpoint_ms: silence that ends a person's turn. min_turn_ms: speech a turn needs to be answered.
    own_voice_tail_ms: how long after the robot's own speech a voice may still be its echo.
    spoken_severity: lowest severity of an alert that is spoken, or "never".
    interrupting_severity: of one that is spoken at once, though the robot speaks of something else.
    flat_contrast: contrast (standard deviation, 0 to 1) under which a picture shows nothing.
    light_jump: change of mean brightness (0 to 1) that is a light going on or off.
    motion_fraction: changed part of the picture from which on something moves.
    loud_jump_db, loud_dbfs: a sudden loud sound is that far above the background, and at least so
    loud. camera_lost_ms, microphone_lost_ms: silence of a stream after which it is lost.
    confirm_units: units for which a cause must hold before its alert is raised, or be gone before
    it is cleared. refractory_s: shortest time from one alert to the next of its kind. lifetime_s:
    an alert expires after it; it is renewed while its cause lasts. stillness_s: motion after so
    long without motion or voice is worth an alert.
    """

    endpoint_ms: float = 400
    min_turn_ms: float = 300
    own_voice_tail_ms: float = 300
    spoken_severity: str = "warning"
    interrupting_severity: str = "critical"
    flat_contrast: float = 0.02
    light_jump: float = 0.2
    motion_fraction: float = 0.02
    loud_jump_db: float = 20
    loud_dbfs: float = -32
    camera_lost_ms: float = 2000
    microphone_lost_ms: float = 1000
    confirm_units: int = 2
    refractory_s: float = 20
    lifetime_s: float = 30
    stillness_s: float = 60

    def __post_init__(self) -> None:
        for entry in fields(self):
            if entry.name in _RANGES:
                self._check_number(entry.name)
        for name in ("spoken_severity", "interrupting_severity"):
            if getattr(self, name) not in SPOKEN_SEVERITIES:
                raise ConfigError(
                    f"reflex.{name} is {getattr(self, name)!r}; "
                    f"it must be one of {', '.join(SPOKEN_SEVERITIES)}"
                )

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        low, high, unit = _RANGES[name]
        whole = name == "confirm_units"
        kinds = (int,) if whole else (int, float)
        wrong_type = isinstance(value, bool) or not isinstance(value, kinds)
        if wrong_type or math.isnan(value) or not low <= value <= high:
            number = "whole number" if whole else "number"
            raise ConfigError(
                f"reflex.{name} is {value!r}; it must be a {number} "
                f"from {low:g} to {high:g} ({unit})"
            )

    def speaks(self, severity: Severity) -> bool:
        """Whether an alert of this severity is spoken."""
        return _reaches(severity, self.spoken_severity)

    def interrupts(self, severity: Severity) -> bool:
        """Whether an alert of this severity is spoken into the robot's own speech."""
        return _reaches(severity, self.interrupting_severity)


def _reaches(severity: Severity, lowest: str) -> bool:
    return lowest != NEVER and severity >= Severity[lowest.upper()]

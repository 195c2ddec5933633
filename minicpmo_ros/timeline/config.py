"""How the timeline is cut: every setting with its unit, its range and its default."""

from __future__ import annotations

from dataclasses import dataclass

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import MIC_RATE_HZ, NS_PER_MS

RANGES: dict[str, tuple[int, int]] = {
    "unit_ms": (100, 10_000),
    "rate_hz": (4_000, 192_000),
    "late_ms": (0, 5_000),
    "pictures_per_unit": (0, 32),
    "jitter_ms": (0, 200),
    "lost_ms": (100, 3_600_000),
    "jump_ms": (1_000, 3_600_000),
    "future_ms": (0, 10_000),
    "start_wait_ms": (0, 60_000),
}


@dataclass(frozen=True)
class TimelineConfig:
    """Settings of a `Timeline`; raises `ConfigError` where one is out of `RANGES`.

    unit_ms: length of a unit. rate_hz: sampling rate of its sound.
    late_ms: how long after its capture sound may be on its way; so long a unit waits after its end.
    pictures_per_unit: a unit takes the newest so many pictures.
    jitter_ms: a chunk's stamp may be off by so much; more is a gap or an overlap.
    lost_ms: a microphone or camera that gives nothing for so long is lost.
    jump_ms: a silent leap of the clock beyond this is skipped, and data older than this is refused.
    future_ms: how far a stamp may lie ahead of the clock, and the clock may step back unnoticed.
    start_wait_ms: how long the first unit waits for sound to begin with.
    """

    unit_ms: int = 1_000
    rate_hz: int = MIC_RATE_HZ
    late_ms: int = 80
    pictures_per_unit: int = 1
    jitter_ms: int = 20
    lost_ms: int = 1_000
    jump_ms: int = 5_000
    future_ms: int = 500
    start_wait_ms: int = 1_000

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(
                    f"{name} is {value!r}; it must be a whole number from {low} to {high}"
                )
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; it must be from {low} to {high}")
        if self.unit_ms * self.rate_hz % 1_000:
            raise ConfigError(
                f"unit_ms is {self.unit_ms}, which is no whole number of samples at rate_hz "
                f"{self.rate_hz}; unit_ms * rate_hz must be a multiple of 1000"
            )
        if self.late_ms > self.unit_ms:
            raise ConfigError(
                f"late_ms is {self.late_ms}; it must be at most unit_ms ({self.unit_ms})"
            )
        if self.jump_ms < self.unit_ms + self.late_ms:
            raise ConfigError(
                f"jump_ms is {self.jump_ms}; it must be at least unit_ms + late_ms "
                f"({self.unit_ms + self.late_ms})"
            )

    @property
    def unit_ns(self) -> int:
        return self.unit_ms * NS_PER_MS

    @property
    def unit_samples(self) -> int:
        return self.unit_ms * self.rate_hz // 1_000

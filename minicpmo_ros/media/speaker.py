"""What drains the play queue: a sound device, the clock alone, or a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.media.playback import PlayQueue
from minicpmo_ros.messages import NS_PER_MS, SPEECH_RATE_HZ

_FILE = "file:"
_RANGES = {
    "block_ms": (5, 100, "ms"),
    "latency_ms": (0, 1000, "ms"),
    "latency_correction_ms": (-1000.0, 1000.0, "ms"),
    "device_rate_hz": (0, 192_000, "Hz"),
}


@dataclass(frozen=True)
class SpeakerConfig:
    """Settings of a speaker. Raises ConfigError where one cannot be.

    sink: "device", "clock" (no sound, but paced as if) or "file:PATH" (.wav, .flac or .ogg).
    device: name, part of a name, or index of an output device; "" is the default one.
    block_ms: of the device's callback. latency_ms: sound that the device holds, 0 for its own
    default; it can be no less than two blocks. What it holds cannot be called back: an interruption
    is heard about latency_ms + 2 block_ms later. latency_correction_ms: added to the time at which
    the device says a sample sounds. device_rate_hz: asked of the device, 0 for 24 kHz or else any
    that it does.
    """

    sink: str = "device"
    device: str | int = ""
    block_ms: int = 10
    latency_ms: int = 30
    latency_correction_ms: float = 0.0
    device_rate_hz: int = 0

    def __post_init__(self) -> None:
        if self.sink not in ("device", "clock") and not self.path:
            raise ConfigError(f"speaker sink {self.sink!r}: must be device, clock or file:PATH")
        for name, (least, most, unit) in _RANGES.items():
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not least <= value <= most:
                raise ConfigError(f"speaker {name} {value}: must be {least} to {most} {unit}")

    @property
    def path(self) -> str:
        """The file of a "file:PATH" sink, else empty."""
        return self.sink[len(_FILE) :] if self.sink.startswith(_FILE) else ""

    @property
    def correction_ns(self) -> int:
        return round(self.latency_correction_ms * NS_PER_MS)


@dataclass(frozen=True)
class SpeakerStatus:
    """How a speaker does, for diagnostics. problem: what is wrong now, "" if nothing. From refused
    on: see `playback.QueueStats`.

    xruns: blocks that the device says came too late; jumps: times the DAC stamps had to be set
    anew; guessed_stamps: blocks for which the device gave no usable time.
    """

    sink: str
    problem: str = ""
    state: str = "closed"
    device: str = ""
    rate_hz: int = 0
    channels: int = 0
    latency_ms: float = 0.0
    queued_samples: int = 0
    xruns: int = 0
    jumps: int = 0
    jump_ms: float = 0.0
    reopenings: int = 0
    guessed_stamps: int = 0
    refused: int = 0
    missing: int = 0
    abandoned: int = 0
    underruns: int = 0
    concealed_samples: int = 0
    caught_up_samples: int = 0

    def as_dict(self) -> dict[str, object]:
        """Names with spaces and units, values as they are printed."""
        return {
            "sink": self.sink,
            "state": self.state,
            "device": self.device,
            "device rate Hz": self.rate_hz,
            "device channels": self.channels,
            "reported latency ms": f"{self.latency_ms:.1f}",
            "queued samples": self.queued_samples,
            "blocks too late": self.xruns,
            "jumps of the stamps": self.jumps,
            "jumped ms": f"{self.jump_ms:.0f}",
            "reopenings": self.reopenings,
            "guessed stamps": self.guessed_stamps,
            "chunks refused": self.refused,
            "chunks missing": self.missing,
            "turns given up": self.abandoned,
            "gaps in speech": self.underruns,
            "concealed ms": f"{self.concealed_samples * 1000 / SPEECH_RATE_HZ:.0f}",
            "caught up ms": f"{self.caught_up_samples * 1000 / SPEECH_RATE_HZ:.0f}",
        }


class Speaker(ABC):
    """Drains a PlayQueue between `open` and `close`.

    `open` raises DeviceError, or ConfigError for a file that cannot be written.
    """

    def __init__(self, config: SpeakerConfig, queue: PlayQueue) -> None:
        self.config = config
        self.queue = queue

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def advance(self, now_ns: int) -> None:  # noqa: B027 - a device drives itself
        """The clock is at now_ns: play what is due. For the sinks that have no clock of theirs."""

    @property
    @abstractmethod
    def status(self) -> SpeakerStatus: ...


def make_speaker(config: SpeakerConfig, queue: PlayQueue, clock: Callable[[], int]) -> Speaker:
    """The speaker that the settings name, not yet open. clock gives ROS time in ns."""
    from minicpmo_ros.media.clock_speaker import ClockSpeaker, FileSpeaker
    from minicpmo_ros.media.device_speaker import DeviceSpeaker

    if config.path:
        return FileSpeaker(config, queue)
    if config.sink == "clock":
        return ClockSpeaker(config, queue)
    return DeviceSpeaker(config, queue, clock)

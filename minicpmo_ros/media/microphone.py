"""The microphone as the mic node sees it: settings, status, and the sources that can be one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import MIC_RATE_HZ, NS_PER_MS, AudioChunk

_FILE = "file:"
_RANGES = {
    "rate_hz": (4_000, 192_000, "Hz"),
    "chunk_ms": (10, 1000, "ms"),
    "block_ms": (5, 100, "ms"),
    "latency_ms": (0, 1000, "ms"),
    "channels": (1, 32, "channels"),
    "device_rate_hz": (0, 192_000, "Hz"),
    "latency_correction_ms": (-1000.0, 1000.0, "ms"),
    "gain_db": (-40.0, 40.0, "dB"),
}


@dataclass(frozen=True)
class MicConfig:
    """Settings of a microphone. Raises ConfigError where one cannot be.

    source: "device", "file:PATH" (wav, flac or ogg) or "silence".
    device: name, part of a name, or index of an input device; "" is the default one.
    rate_hz, chunk_ms: of the chunks handed out, mono.
    channels: how many are opened at the device; channel: which of them is used, -1 their mean.
    device_rate_hz: rate asked of the device, 0 for rate_hz or else whatever it does.
    block_ms: of the device's callback; latency_ms: asked of the device, 0 for its own default.
    latency_correction_ms: added to every stamp; negative where the device reports its samples
    later than it heard them.
    gain_db: applied to the samples. loop: a file begins again at its end.
    """

    source: str = "device"
    device: str | int = ""
    rate_hz: int = MIC_RATE_HZ
    chunk_ms: int = 100
    channels: int = 1
    channel: int = -1
    device_rate_hz: int = 0
    block_ms: int = 20
    latency_ms: int = 40
    latency_correction_ms: float = 0.0
    gain_db: float = 0.0
    loop: bool = False
    frame_id: str = ""

    def __post_init__(self) -> None:
        if self.source not in ("device", "silence") and not self.path:
            raise ConfigError(
                f"microphone source {self.source!r}: must be device, silence or file:PATH"
            )
        for name, (least, most, unit) in _RANGES.items():
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not least <= value <= most:
                raise ConfigError(f"microphone {name} {value}: must be {least} to {most} {unit}")
        if not -1 <= self.channel < self.channels:
            raise ConfigError(
                f"microphone channel {self.channel}: must be -1 (the mean) or one of the "
                f"{self.channels} opened, counted from 0"
            )

    @property
    def path(self) -> str:
        """The file of a "file:PATH" source, else empty."""
        return self.source[len(_FILE) :] if self.source.startswith(_FILE) else ""

    @property
    def chunk_frames(self) -> int:
        return max(1, round(self.rate_hz * self.chunk_ms / 1000))

    @property
    def correction_ns(self) -> int:
        return round(self.latency_correction_ms * NS_PER_MS)


@dataclass(frozen=True)
class MicStatus:
    """How a microphone does, for diagnostics. problem: what is wrong now, "" if nothing.

    overflow_ms: sound lost because nobody read it; xruns: losses that the device reported;
    jumps: times the stamps had to be set anew, jump_ms the sum of it; guessed_stamps: blocks for
    which the device gave no usable time.
    """

    source: str
    problem: str = ""
    state: str = "closed"
    device: str = ""
    rate_hz: int = 0
    channels: int = 0
    latency_ms: float = 0.0
    chunks: int = 0
    overflow_ms: float = 0.0
    xruns: int = 0
    jumps: int = 0
    jump_ms: float = 0.0
    reopenings: int = 0
    guessed_stamps: int = 0

    def as_dict(self) -> dict[str, object]:
        """Names with spaces and units, values as they are printed."""
        return {
            "source": self.source,
            "state": self.state,
            "device": self.device,
            "device rate Hz": self.rate_hz,
            "device channels": self.channels,
            "reported latency ms": f"{self.latency_ms:.1f}",
            "chunks": self.chunks,
            "lost in the ring ms": f"{self.overflow_ms:.0f}",
            "lost in the device": self.xruns,
            "jumps of the stamps": self.jumps,
            "jumped ms": f"{self.jump_ms:.0f}",
            "reopenings": self.reopenings,
            "guessed stamps": self.guessed_stamps,
        }


class Microphone(ABC):
    """A source of sound: int16 mono chunks, stamped with the time of their first sample.

    `open` raises DeviceError or InputError with the reason; after it `read` is called from one
    thread. `close` may be called from any thread and ends a read that waits.
    """

    def __init__(self, config: MicConfig, clock: Callable[[], int]) -> None:
        """clock gives ROS time in ns."""
        self.config = config
        self._clock = clock
        self._sequence = 0
        self._gain = 10.0 ** (config.gain_db / 20.0)

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def read(self, timeout_s: float) -> AudioChunk | None:
        """The next chunk; None where it is not there within timeout_s, or the source has ended."""

    @abstractmethod
    def close(self) -> None: ...

    @property
    @abstractmethod
    def status(self) -> MicStatus: ...

    def _chunk(self, stamp_ns: int, samples: np.ndarray) -> AudioChunk:
        """Number and stamp int16 [frames], with gain and latency correction."""
        if self.config.gain_db:
            samples = np.clip(np.rint(samples * self._gain), -32768, 32767).astype(np.int16)
        chunk = AudioChunk(
            stamp_ns + self.config.correction_ns,
            samples,
            self.config.rate_hz,
            self._sequence,
            frame_id=self.config.frame_id,
        )
        self._sequence += 1
        return chunk


def make_microphone(config: MicConfig, clock: Callable[[], int]) -> Microphone:
    """The microphone that the settings name, not yet open. clock gives ROS time in ns."""
    from minicpmo_ros.media.device_microphone import DeviceMicrophone
    from minicpmo_ros.media.file_microphone import FileMicrophone, SilenceMicrophone

    if config.path:
        return FileMicrophone(config, clock)
    if config.source == "silence":
        return SilenceMicrophone(config, clock)
    return DeviceMicrophone(config, clock)


def mono(samples: np.ndarray, channel: int) -> np.ndarray:
    """One channel of int16 [frames, channels], or with -1 the mean of all: int16 [frames]."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    if channel >= 0:
        return samples[:, min(channel, samples.shape[1] - 1)]
    return np.rint(samples.mean(axis=1)).astype(np.int16)

"""The project's topics as plain frozen dataclasses: what rooms hand to each other, without ROS.

Each class mirrors the interface of the same name in msg/ (which documents units and meaning of
every field), with times as integer nanoseconds of ROS time and samples as numpy arrays. nodes/ and
replay/ convert between the two; nobody else sees a ROS message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

MIC_RATE_HZ = 16_000
SPEECH_RATE_HZ = 24_000

EMPTY_SAMPLES = np.zeros(0, dtype=np.int16)


class Action(IntEnum):
    """What a unit's decision is."""

    LISTEN = 0
    SPEAK = 1


class Severity(IntEnum):
    """How much an alert matters."""

    INFO = 0
    NOTICE = 1
    WARNING = 2
    CRITICAL = 3


class PlaybackEvent(IntEnum):
    """What happened to a turn at the speaker."""

    STARTED = 0
    PLAYING = 1
    FINISHED = 2
    INTERRUPTED = 3


class State(IntEnum):
    """State of the conversation."""

    IDLE = 0
    LISTENING = 1
    SPEAKING = 2
    FAULT = 3


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """Sound as captured or as played. data: int16, [frames] for mono or [frames, channels]."""

    stamp_ns: int
    data: np.ndarray
    sample_rate: int = MIC_RATE_HZ
    sequence: int = 0
    muted: bool = False
    frame_id: str = ""

    @property
    def channels(self) -> int:
        return 1 if self.data.ndim == 1 else int(self.data.shape[1])

    @property
    def duration_ns(self) -> int:
        """Length of the chunk, rounded to a nanosecond."""
        return round(len(self.data) * NS_PER_S / self.sample_rate)

    @property
    def end_ns(self) -> int:
        return self.stamp_ns + self.duration_ns


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture and when it was captured.

    Decoding costs milliseconds and most pictures of a fast camera are never looked at, so a picture
    holds the function that decodes it; `rgb()` gives uint8 [height, width, 3] and raises
    `InputError` where the message cannot be decoded.
    """

    stamp_ns: int
    decode: Callable[[], np.ndarray]
    frame_id: str = ""
    _cache: list[np.ndarray] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, stamp_ns: int, rgb: np.ndarray, frame_id: str = "") -> Picture:
        """A picture that is decoded already."""
        return cls(stamp_ns, lambda: rgb, frame_id)

    def rgb(self) -> np.ndarray:
        if not self._cache:
            self._cache.append(self.decode())
        return self._cache[0]


@dataclass(frozen=True)
class WordMark:
    """A word and its samples [start_sample, end_sample) within its chunk."""

    text: str
    start_sample: int
    end_sample: int


@dataclass(frozen=True, eq=False)
class SpeechChunk:
    """A piece of speech; stamp_ns is when its first sample should sound. data: int16 [samples]."""

    stamp_ns: int
    epoch: int
    turn: int
    sequence: int
    unit: int
    data: np.ndarray
    text: str = ""
    words: tuple[WordMark, ...] = ()
    last: bool = False
    sample_rate: int = SPEECH_RATE_HZ

    @property
    def duration_ns(self) -> int:
        return round(len(self.data) * NS_PER_S / self.sample_rate)


@dataclass(frozen=True)
class StageTiming:
    """Wall time of one stage."""

    stage: str
    ms: float


@dataclass(frozen=True)
class Decision:
    """One a unit; stamp_ns is the unit's end."""

    stamp_ns: int
    unit: int
    epoch: int
    action: Action
    turn: int = 0
    text: str = ""
    end_of_turn: bool = False
    reason: str = ""
    brain: str = ""
    mode: str = "duplex"
    p_listen: float = float("nan")
    p_speak: float = float("nan")
    pictures: tuple[int, ...] = ()
    audio_filled_ms: float = 0.0
    kv_length: int = 0
    kv_capacity: int = 0
    timings: tuple[StageTiming, ...] = ()


@dataclass(frozen=True)
class Alert:
    """Something nobody asked for; evidence are capture stamps in ns."""

    stamp_ns: int
    kind: str
    number: int
    severity: Severity
    active: bool
    text: str
    unit: int
    epoch: int
    evidence: tuple[int, ...] = ()
    expires_ns: int = 0


@dataclass(frozen=True)
class Playback:
    """What has been heard of a turn; stamp_ns is when the last counted sample left the DAC."""

    stamp_ns: int
    epoch: int
    turn: int
    event: PlaybackEvent
    turn_samples: int
    heard: str = ""
    queued_samples: int = 0
    concealed_samples: int = 0
    sample_rate: int = SPEECH_RATE_HZ


@dataclass(frozen=True)
class VoiceActivity:
    """Speech starts or stops at stamp_ns."""

    stamp_ns: int
    speaking: bool
    segment: int
    probability: float
    loudness: float


@dataclass(frozen=True)
class SessionState:
    """The conversation as a whole."""

    stamp_ns: int
    state: State
    epoch: int = 0
    turn: int = 0
    unit: int = 0
    mode: str = "duplex"
    brain: str = ""
    detail: str = ""

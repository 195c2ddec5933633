"""Everything a report shows, as plain data: what `ReportBuilder` makes and html, png and live draw.

Times are integer nanoseconds of ROS time, durations floating milliseconds; arrays are numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    Decision,
    PlaybackEvent,
    Severity,
    State,
)


@dataclass(frozen=True)
class Span:
    """A stretch of time [start_ns, stop_ns)."""

    start_ns: int
    stop_ns: int

    @property
    def ms(self) -> float:
        return (self.stop_ns - self.start_ns) / NS_PER_MS


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, JPEG, with the stamp of the picture it was made from."""

    stamp_ns: int
    width: int
    height: int
    jpeg: bytes


@dataclass(frozen=True)
class PictureLane:
    """What the camera gave. unreadable: pictures chosen as thumbnails that could not be decoded."""

    count: int = 0
    unreadable: int = 0
    thumbnails: tuple[Thumbnail, ...] = ()
    gaps: tuple[Span, ...] = ()


@dataclass(frozen=True, eq=False)
class Envelope:
    """Lowest and highest sample of each bin: int16 [bins]; a bin without sound has low > high."""

    start_ns: int
    bin_ns: int
    low: np.ndarray
    high: np.ndarray

    @property
    def stop_ns(self) -> int:
        return self.start_ns + len(self.low) * self.bin_ns


@dataclass(frozen=True, eq=False)
class SoundLane:
    """A microphone's or a speaker's sound. lost: stretches in which no chunk came."""

    chunks: int = 0
    sound_ms: float = 0.0
    envelope: Envelope | None = None
    lost: tuple[Span, ...] = ()
    muted: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Clip:
    """Encoded sound that a browser plays; its first sample sounded at start_ns."""

    mime: str
    data: bytes
    start_ns: int
    duration_ms: float


@dataclass(frozen=True)
class VoiceSegment:
    """A stretch of speech heard by the robot; open: it had no end in the recording."""

    span: Span
    segment: int
    probability: float
    loudness: float
    open: bool = False


@dataclass(frozen=True)
class UnitMark:
    """One unit: [start, end) on the timeline, what was decided and how late that came."""

    span: Span
    decision: Decision
    decided_after_ms: float | None = None


@dataclass(frozen=True)
class Word:
    """A word of the robot, when it sounded (or should have), and whether it was heard to its end.

    heard is None where the recording holds no playback reports. estimated: the synthesiser gave no
    place for the word, so its time is in proportion to its letters.
    """

    text: str
    span: Span
    heard: bool | None
    estimated: bool = False


class Outcome(Enum):
    """How a turn ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    NEVER_HEARD = "never heard"
    UNFINISHED = "still sounding at the end of the recording"
    UNKNOWN = "not known: no playback reports in the recording"


@dataclass(frozen=True)
class TurnView:
    """One turn of the robot.

    sounded: from its first sample to its last one heard (planned times without playback reports).
    planned_stop_ns: when it would have ended. clip: all of its sound, heard or not.
    """

    turn: int
    epoch: int
    unit: int
    text: str
    words: tuple[Word, ...]
    sounded: Span
    planned_stop_ns: int
    outcome: Outcome
    heard_text: str
    spoken_ms: float
    heard_ms: float
    concealed_ms: float
    clip: Clip | None = None

    @property
    def unheard(self) -> Span | None:
        """The stretch that was cut off; None if there is none."""
        if self.outcome is Outcome.NEVER_HEARD:
            return Span(self.sounded.start_ns, self.planned_stop_ns)
        cut = self.outcome in (Outcome.INTERRUPTED, Outcome.UNFINISHED)
        if cut and self.planned_stop_ns > self.sounded.stop_ns:
            return Span(self.sounded.stop_ns, self.planned_stop_ns)
        return None


@dataclass(frozen=True)
class PlaybackMark:
    """A turn starts, finishes or is interrupted at the speaker."""

    stamp_ns: int
    turn: int
    event: PlaybackEvent
    heard: str = ""


@dataclass(frozen=True)
class AlertView:
    """An alert from raising to clearing, expiry or the end of the recording, which ended says."""

    span: Span
    number: int
    kind: str
    severity: Severity
    text: str
    unit: int
    ended: str
    expires_ns: int = 0
    evidence: tuple[int, ...] = ()


@dataclass(frozen=True)
class StateSpan:
    """How long the conversation was in a state."""

    span: Span
    state: State
    brain: str = ""
    mode: str = ""
    detail: str = ""


@dataclass(frozen=True)
class EpochMark:
    """The epoch grew: speech of an older one must not sound after stamp_ns."""

    stamp_ns: int
    epoch: int
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Hop:
    """Latency of one hop. at_ns int64 [shown] and ms float [shown] are a sample that keeps maxima;
    count and the percentiles are over all."""

    name: str
    meaning: str
    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    at_ns: np.ndarray
    ms: np.ndarray


@dataclass(frozen=True)
class Summary:
    """The figures of the table at the top."""

    length_ms: float = 0.0
    units: int = 0
    listen_units: int = 0
    speak_units: int = 0
    turns: int = 0
    interruptions: int = 0
    words_spoken: int = 0
    words_heard: int | None = None
    spoken_ms: float = 0.0
    heard_ms: float | None = None
    concealed_ms: float = 0.0
    voice_segments: int = 0
    voice_ms: float = 0.0
    filled_ms: float = 0.0
    pictures: int = 0
    alerts: tuple[tuple[Severity, int], ...] = ()
    brains: tuple[str, ...] = ()

    @property
    def listen_share(self) -> float:
        """0 to 1; 0 without units."""
        return self.listen_units / self.units if self.units else 0.0

    @property
    def speak_share(self) -> float:
        return self.speak_units / self.units if self.units else 0.0


@dataclass(frozen=True, eq=False)
class ReportView:
    """A recorded conversation, ready to be drawn. notes: what a reader must know about the data."""

    span: Span = Span(0, NS_PER_S)
    summary: Summary = Summary()
    pictures: PictureLane = PictureLane()
    mic: SoundLane = SoundLane()
    played: SoundLane = SoundLane()
    voice: tuple[VoiceSegment, ...] = ()
    units: tuple[UnitMark, ...] = ()
    turns: tuple[TurnView, ...] = ()
    playback: tuple[PlaybackMark, ...] = ()
    alerts: tuple[AlertView, ...] = ()
    states: tuple[StateSpan, ...] = ()
    epochs: tuple[EpochMark, ...] = ()
    hops: tuple[Hop, ...] = ()
    conversation: Clip | None = None
    notes: tuple[str, ...] = ()

    def hop(self, name: str) -> Hop | None:
        """The hop of that name, or None if nothing of it was measured."""
        return next((h for h in self.hops if h.name == name), None)

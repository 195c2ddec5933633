"""Makes a `ReportView` from the messages of a recording, in memory that its length hardly moves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from minicpmo_ros import topics
from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.messages import (
    NS_PER_S,
    Alert,
    AudioChunk,
    Decision,
    Picture,
    Playback,
    PlaybackEvent,
    SessionState,
    SpeechChunk,
    VoiceActivity,
)
from minicpmo_ros.replay.report import latency
from minicpmo_ros.replay.report.events import EventsBuilder
from minicpmo_ros.replay.report.latency import LatencyBuilder
from minicpmo_ros.replay.report.pictures import PictureLaneBuilder
from minicpmo_ros.replay.report.sound import Track, conversation, mono
from minicpmo_ros.replay.report.soundlane import SoundLaneBuilder
from minicpmo_ros.replay.report.summary import summarise
from minicpmo_ros.replay.report.turns import TurnsBuilder
from minicpmo_ros.replay.report.view import Outcome, PlaybackMark, ReportView, Span

Message = (
    AudioChunk | Picture | SpeechChunk | Decision | Alert | Playback | VoiceActivity | SessionState
)

_SOUNDS = {topics.MIC.name, topics.PLAYED.name}
_FAR_NS = 600 * NS_PER_S  # a stamp this far from its neighbours belongs to no conversation
_OTHER_CLOCK_MS = 60_000.0
_BARGE_IN_NS = 3 * NS_PER_S  # voice that began earlier is not what stopped the robot
_FIRST_LOOKED_AT = 32


@dataclass(frozen=True)
class ReportLimits:
    """How much of a recording a report holds. Raises ConfigError for a limit that is not above 0.

    thumbnails: pictures kept. envelope_bins: bins of each waveform. wav_s: seconds of sound up to
    which it is WAV, beyond it Ogg Vorbis. sound_s: seconds beyond which it is left out.
    """

    thumbnails: int = 120
    thumbnail_width: int = 320
    envelope_bins: int = 24_000
    wav_s: float = 120.0
    sound_s: float = 3_660.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(f"{name} = {value}: it must be above 0")


class ReportBuilder:
    """Takes the messages of a recording in the order in which they were logged."""

    def __init__(self, limits: ReportLimits | None = None) -> None:
        self.limits = limits or ReportLimits()
        bins = self.limits.envelope_bins
        self._pictures = PictureLaneBuilder(self.limits.thumbnails, self.limits.thumbnail_width)
        self._mic, self._played = SoundLaneBuilder(bins), SoundLaneBuilder(bins)
        self._left, self._right = Track(self.limits.sound_s), Track(self.limits.sound_s)
        self._turns = TurnsBuilder()
        self._marks: list[PlaybackMark] = []
        self._events = EventsBuilder()
        self._latency = LatencyBuilder()
        self._start_ns: int | None = None
        self._stop_ns = 0
        self._offset_ns: int | None = None
        self._waiting: list[tuple[str, int, Message]] | None = []
        self._misplaced = 0

    def add(self, topic: str, log_ns: int, message: Message) -> None:
        """log_ns: when the message was received. Raises InputError for a message that has no lane.

        A message whose stamp is 0 or minutes away from all others is counted and left out.
        """
        if not isinstance(message, Message):
            raise InputError(
                f"a {type(message).__name__} on {topic}: a report is made of "
                "minicpmo_ros.messages (AudioChunk, Picture, Decision, ...)"
            )
        if isinstance(message, AudioChunk) and topic not in _SOUNDS:
            raise InputError(
                f"sound on the topic {topic}: it must be {' or '.join(sorted(_SOUNDS))}"
            )
        if self._waiting is None:
            self._place(topic, log_ns, message)
            return
        self._waiting.append((topic, log_ns, message))
        if len(self._waiting) >= _FIRST_LOOKED_AT:
            self._begin()

    def _begin(self) -> None:
        """Learn from the first messages how far stamps and log times are apart: one bad stamp among
        them must not decide it."""
        waiting, self._waiting = self._waiting or [], None
        if waiting:
            self._offset_ns = statistics.median_low([log - m.stamp_ns for _, log, m in waiting])
        for topic, log_ns, message in waiting:
            self._place(topic, log_ns, message)

    def _place(self, topic: str, log_ns: int, message: Message) -> None:
        latched = isinstance(message, (Alert, SessionState))
        offset = log_ns - message.stamp_ns
        far = self._offset_ns is not None and abs(offset - self._offset_ns) > _FAR_NS
        # Alerts and states are kept for late joiners, so a recording may begin with an old one.
        if message.stamp_ns <= 0 or (far and not latched):
            self._misplaced += 1
            return
        if not latched:
            self._offset_ns = offset  # followed: a replay may run faster than its recorder's clock
        self._take(topic, log_ns, message)

    def _take(self, topic: str, log_ns: int, message: Message) -> None:
        match message:
            case AudioChunk():
                self._take_sound(topic, log_ns, message)
            case Picture():
                self._pictures.add(message)
                self._cover(message.stamp_ns)
                self._latency.add(latency.PICTURE, message.stamp_ns, log_ns - message.stamp_ns)
            case SpeechChunk():
                self._turns.add_chunk(message, log_ns)
            case Decision():
                self._events.add_decision(message, log_ns)
                self._cover(message.stamp_ns - NS_PER_S, message.stamp_ns)
                self._latency.add(latency.DECISION, message.stamp_ns, log_ns - message.stamp_ns)
                for timing in message.timings:
                    hop = latency.STAGE + timing.stage
                    self._latency.add(hop, message.stamp_ns, timing.ms * 1e6)
            case Playback():
                self._take_playback(message)
            case VoiceActivity():
                self._events.add_voice(message)
                self._cover(message.stamp_ns)
            case SessionState():
                self._events.add_state(message)
            case Alert():
                self._events.add_alert(message)

    def _take_sound(self, topic: str, log_ns: int, chunk: AudioChunk) -> None:
        from_mic = topic == topics.MIC.name
        (self._mic if from_mic else self._played).add(chunk)
        track = self._left if from_mic else self._right
        track.add(chunk.stamp_ns, mono(chunk.data), chunk.sample_rate)
        self._cover(chunk.stamp_ns, chunk.end_ns)
        if from_mic:
            self._latency.add(latency.MIC, chunk.end_ns, log_ns - chunk.end_ns)

    def _take_playback(self, report: Playback) -> None:
        self._turns.add_report(report)
        self._cover(report.stamp_ns)
        if report.event != PlaybackEvent.PLAYING:
            self._marks.append(
                PlaybackMark(report.stamp_ns, report.turn, report.event, report.heard)
            )

    def _cover(self, start_ns: int, stop_ns: int | None = None) -> None:
        self._start_ns = start_ns if self._start_ns is None else min(self._start_ns, start_ns)
        self._stop_ns = max(self._stop_ns, start_ns, stop_ns or 0)

    def build(self) -> ReportView:
        """What was added so far; more may be added afterwards."""
        if self._waiting:
            self._begin()
        turns, silent = self._turns.build(self.limits.wav_s, self.limits.sound_s)
        span = self._span([t.planned_stop_ns for t in turns])
        view = ReportView(
            span=span,
            pictures=self._pictures.build(span.stop_ns),
            mic=self._mic.build(span.stop_ns),
            played=self._played.build(None),
            voice=self._events.voice(span),
            units=self._events.units(),
            turns=turns,
            playback=tuple(self._marks),
            alerts=self._events.alerts(span),
            states=self._events.states(span),
            epochs=self._events.epochs(span),
            conversation=conversation(self._left, self._right, self.limits.wav_s),
        )
        self._measure_turns()
        self._measure_interruptions(view)
        other_clock = self._other_clock()
        hops = self._latency.build(without=latency.AGAINST_LOG if other_clock else ())
        return summarise(replace(view, hops=hops, notes=tuple(self._notes(silent, other_clock))))

    def _span(self, turn_stops: list[int]) -> Span:
        """The whole timeline: what sensors, units and speech cover; at least a second."""
        start = self._start_ns
        if start is None:
            seen = self._events.stamps_ns()
            start, stop = min(seen, default=0), max(seen, default=0)
        else:
            stop = max(self._stop_ns, *turn_stops, start)
        return Span(start, max(stop, start + NS_PER_S))

    def _measure_turns(self) -> None:
        """How fast turns reached the speaker; topics may have been logged in any order."""
        speech, sound, schedule = [], [], []
        for turn in self._turns.records:
            if turn.planned_ns is None:
                continue
            decided_ns = self._events.decided_ns(turn.unit)
            if decided_ns is not None:
                speech.append((turn.planned_ns, turn.first_log_ns - decided_ns))
            if turn.sounded_ns is not None:
                sound.append((turn.sounded_ns, turn.sounded_ns - turn.first_log_ns))
                schedule.append((turn.sounded_ns, turn.sounded_ns - turn.planned_ns))
        self._latency.set(latency.SPEECH, speech)
        self._latency.set(latency.SOUND, sound)
        self._latency.set(latency.SCHEDULE, schedule)

    def _measure_interruptions(self, view: ReportView) -> None:
        """How fast the robot fell silent; known only when all events are there."""
        silences, barge_ins = [], []
        for turn in view.turns:
            if turn.outcome is not Outcome.INTERRUPTED:
                continue
            silent_ns = turn.sounded.stop_ns
            grown = next((e for e in view.epochs if e.epoch > turn.epoch), None)
            if grown is not None:
                silences.append((silent_ns, silent_ns - grown.stamp_ns))
            voices = [v.span.start_ns for v in view.voice if v.span.start_ns <= silent_ns]
            if voices and silent_ns - voices[-1] <= _BARGE_IN_NS:
                barge_ins.append((silent_ns, silent_ns - voices[-1]))
        self._latency.set(latency.SILENCE, silences)
        self._latency.set(latency.BARGE_IN, barge_ins)

    def _other_clock(self) -> bool:
        medians = (self._latency.median_ms(hop) for hop in latency.AGAINST_LOG)
        return any(m is not None and abs(m) > _OTHER_CLOCK_MS for m in medians)

    def _notes(self, silent: int, other_clock: bool) -> Iterator[str]:
        if self._misplaced:
            yield (
                f"{self._misplaced} messages are left out: their stamps are 0 or more than "
                f"{_FAR_NS // NS_PER_S} s away from those around them."
            )
        if other_clock:
            yield (
                "Log times of this recording are on another clock than its stamps (minutes apart): "
                "latencies between the two are left out."
            )
        for track, name in ((self._left, topics.MIC.name), (self._right, topics.PLAYED.name)):
            if track.too_long:
                yield (
                    f"{name} is longer than {self.limits.sound_s:.0f} s: it is drawn, but cannot "
                    "be played here."
                )
        if silent:
            yield (
                f"{silent} turns have no sound here: together the turns are longer than "
                f"{self.limits.sound_s:.0f} s."
            )

"""Robot turns put together from what was sent to the speaker and what the speaker reported."""

from __future__ import annotations

import itertools
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    SPEECH_RATE_HZ,
    Playback,
    PlaybackEvent,
    SpeechChunk,
    WordMark,
)
from minicpmo_ros.replay.report.sound import encode, resampled
from minicpmo_ros.replay.report.view import Clip, Outcome, Span, TurnView, Word


@dataclass
class TurnRecord:
    """One turn while the bag is read; samples are counted at rate_hz from its first one."""

    turn: int
    epoch: int
    unit: int = 0
    rate_hz: int = SPEECH_RATE_HZ
    first_log_ns: int = 0
    planned_ns: int | None = None
    next_ns: int = 0
    samples: int = 0
    sequence: int = -1
    last: bool = False
    texts: list[str] = field(default_factory=list)
    words: list[tuple[str, int, int, bool]] = field(default_factory=list)
    pieces: list[tuple[int, int]] = field(default_factory=list)
    chunk_at: list[tuple[int, int]] = field(default_factory=list)
    reports_ns: array[int] = field(default_factory=lambda: array("q"))
    reports: array[int] = field(default_factory=lambda: array("q"))
    sounded_ns: int | None = None
    ended: Playback | None = None
    heard: str = ""
    concealed: int = 0

    def add_chunk(self, chunk: SpeechChunk, log_ns: int) -> None:
        if self.planned_ns is None:
            self.planned_ns = chunk.stamp_ns
            self.first_log_ns, self.unit, self.rate_hz = log_ns, chunk.unit, chunk.sample_rate
            self.next_ns = chunk.stamp_ns
        begin_ns = max(self.next_ns, chunk.stamp_ns)
        scale = self.rate_hz / chunk.sample_rate
        count = round(len(chunk.data) * scale)
        self.chunk_at.append((self.samples, begin_ns))
        if chunk.text:
            self.texts.append(chunk.text)
        estimated = not chunk.words and bool(chunk.text)
        for mark in chunk.words or guessed_marks(chunk.text, len(chunk.data)):
            self.words.append(
                (
                    mark.text,
                    self.samples + round(mark.start_sample * scale),
                    self.samples + round(mark.end_sample * scale),
                    estimated,
                )
            )
        self.samples += count
        self.next_ns = begin_ns + round(count * NS_PER_S / self.rate_hz)
        self.sequence = chunk.sequence
        self.last = self.last or chunk.last

    def add_report(self, report: Playback) -> None:
        if self.planned_ns is None and not self.reports:
            self.rate_hz = report.sample_rate
        sounded = round(report.turn_samples * self.rate_hz / report.sample_rate)
        self.reports_ns.append(report.stamp_ns)
        self.reports.append(sounded)
        self.heard = report.heard or self.heard
        self.concealed = round(report.concealed_samples * self.rate_hz / report.sample_rate)
        if self.sounded_ns is None and (sounded or report.event == PlaybackEvent.STARTED):
            silence = 0 if report.event == PlaybackEvent.STARTED else self.concealed
            self.sounded_ns = report.stamp_ns - (sounded + silence) * NS_PER_S // self.rate_hz
        if report.event in (PlaybackEvent.FINISHED, PlaybackEvent.INTERRUPTED):
            self.ended = report

    @property
    def heard_samples(self) -> int:
        return max(self.reports, default=0)

    def time_of(self, sample: int) -> int:
        """When a sample of the turn sounded, or would have: reports first, else the plan."""
        if self.sounded_ns is not None:
            at = int(np.searchsorted(np.array(self.reports), sample))
            if at < len(self.reports):
                back = (self.reports[at] - sample) * NS_PER_S // self.rate_hz
                return max(self.sounded_ns, self.reports_ns[at] - back)
            ahead = (sample - self.reports[-1]) * NS_PER_S // self.rate_hz
            return self.reports_ns[-1] + ahead
        begin, begin_ns = 0, self.planned_ns or 0
        for first, at_ns in self.chunk_at:
            if first <= sample:
                begin, begin_ns = first, at_ns
        return begin_ns + (sample - begin) * NS_PER_S // self.rate_hz

    def outcome(self, with_playback: bool) -> Outcome:
        if not with_playback:
            return Outcome.UNKNOWN
        if self.ended is not None:
            if self.ended.event == PlaybackEvent.FINISHED:
                return Outcome.FINISHED
            return Outcome.INTERRUPTED if self.heard_samples else Outcome.NEVER_HEARD
        return Outcome.UNFINISHED if self.heard_samples else Outcome.NEVER_HEARD


def guessed_marks(text: str, samples: int) -> tuple[WordMark, ...]:
    """Words in proportion to their letters, for a chunk whose synthesiser gave no marks."""
    words = text.split()
    ends = list(itertools.accumulate(len(w) + 1 for w in words))
    starts = [0, *ends][: len(words)]
    return tuple(
        WordMark(w, samples * a // ends[-1], samples * b // ends[-1])
        for w, a, b in zip(words, starts, ends, strict=True)
    )


class TurnsBuilder:
    """All turns of a recording; their sound waits in a temporary file."""

    def __init__(self) -> None:
        self.records: list[TurnRecord] = []
        self.with_playback = False
        self._now: dict[tuple[int, int], TurnRecord] = {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the builder
        self._written = 0

    def add_chunk(self, chunk: SpeechChunk, log_ns: int) -> None:
        """A chunk that was there already is left out."""
        key = (chunk.epoch, chunk.turn)
        record = self._now.get(key)
        if record is not None and chunk.sequence <= record.sequence:
            # Sequence 0 at another time: another session counts its turns from 1 again.
            if chunk.sequence > 0 or chunk.stamp_ns == record.planned_ns:
                return
            record = None
        if record is None:
            record = self._new(key)
        record.add_chunk(chunk, log_ns)
        samples = resampled(chunk.data, chunk.sample_rate, record.rate_hz)
        self._file.seek(2 * self._written)
        self._file.write(np.ascontiguousarray(samples, "<i2").tobytes())
        record.pieces.append((self._written, len(samples)))
        self._written += len(samples)

    def add_report(self, report: Playback) -> None:
        self.with_playback = True
        key = (report.epoch, report.turn)
        record = self._now.get(key) or self._new(key)
        record.add_report(report)

    def _new(self, key: tuple[int, int]) -> TurnRecord:
        record = TurnRecord(turn=key[1], epoch=key[0])
        self._now[key] = record
        self.records.append(record)
        return record

    def build(self, wav_s: float, most_s: float) -> tuple[tuple[TurnView, ...], int]:
        """The turns, and how many of them are without sound because it exceeds most_s in all.

        Up to wav_s seconds of speech in all are WAV; more is Ogg Vorbis.
        """
        total_s = sum(r.samples / r.rate_hz for r in self.records)
        turns, silent, room_s = [], 0, most_s
        for record in self.records:
            clip = None
            length_s = record.samples / record.rate_hz
            if record.samples and length_s <= room_s:
                room_s -= length_s
                clip = self._clip(record, as_wav=total_s <= wav_s)
            elif record.samples:
                silent += 1
            turns.append(_turn_view(record, self.with_playback, clip))
        return tuple(sorted(turns, key=lambda t: t.sounded.start_ns)), silent

    def _clip(self, record: TurnRecord, as_wav: bool) -> Clip:
        ms = record.samples * 1000 / record.rate_hz
        start_ns = record.time_of(0)
        return encode(self._pieces(record), record.rate_hz, 1, start_ns, ms, as_wav)

    def _pieces(self, record: TurnRecord) -> Iterator[np.ndarray]:
        for first, count in record.pieces:
            self._file.seek(2 * first)
            yield np.frombuffer(self._file.read(2 * count), "<i2")


def _turn_view(record: TurnRecord, with_playback: bool, clip: Clip | None) -> TurnView:
    outcome = record.outcome(with_playback)
    heard = record.heard_samples
    start = record.sounded_ns if record.sounded_ns is not None else record.time_of(0)
    planned_stop = record.time_of(max(record.samples, heard))
    if outcome is Outcome.UNKNOWN:
        stop = planned_stop
    elif outcome is Outcome.NEVER_HEARD:
        stop = start
    else:
        stop = record.reports_ns[-1] if record.ended is None else record.ended.stamp_ns
    words = tuple(
        Word(
            text,
            Span(record.time_of(a), record.time_of(b)),
            None if outcome is Outcome.UNKNOWN else outcome is Outcome.FINISHED or b <= heard,
            estimated,
        )
        for text, a, b, estimated in record.words
    )
    known = " ".join(w.text for w in words if w.heard) if words else record.heard
    return TurnView(
        turn=record.turn,
        epoch=record.epoch,
        unit=record.unit,
        text=" ".join(t.strip() for t in record.texts) or record.heard,
        words=words,
        sounded=Span(start, max(start, stop)),
        planned_stop_ns=max(planned_stop, stop),
        outcome=outcome,
        heard_text=record.heard or ("" if outcome is Outcome.UNKNOWN else known),
        spoken_ms=record.samples * 1000 / record.rate_hz,
        heard_ms=heard * 1000 / record.rate_hz,
        concealed_ms=record.concealed * NS_PER_S / record.rate_hz / NS_PER_MS,
        clip=clip,
    )

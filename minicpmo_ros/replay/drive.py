"""Leads a stage through a bag: the bag's time, its messages, and a new bag of what comes out.

A stage is whatever lives on that time: a session with a simulated speaker, or the real nodes. All
of them are led by the same steps, so that they can come to the same results.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    Alert,
    Decision,
    Picture,
    Playback,
    PlaybackEvent,
    SpeechChunk,
)
from minicpmo_ros.replay.bag import Bag, Record
from minicpmo_ros.replay.bag_writer import BagWriter
from minicpmo_ros.replay.progress import Progress, no_progress
from minicpmo_ros.timeline.config import TimelineConfig
from minicpmo_ros.topics import IMAGE, IMAGE_COMPRESSED, INPUTS, MIC, Topic
from minicpmo_ros.wire import Message

TICK_NS = 20 * NS_PER_MS  # as the nodes: how often they look at the clock and at the speaker
LONGEST_PAUSE_NS = 3600 * NS_PER_S  # in a longer one the clock leaps instead of ticking
LONGEST_TAIL_NS = 30 * NS_PER_S  # for speech that goes on when the bag has ended

Output = tuple[Topic, Message | bytes]
"""A message of ours, or its CDR."""


class Stage(Protocol):
    """What lives through the bag."""

    @property
    def timeline(self) -> TimelineConfig:
        """How the session cuts its units."""

    def start(self, now_ns: int) -> list[Output]: ...

    def step(self, now_ns: int, record: Record | None = None) -> list[Output]:
        """Time goes on to now_ns; then the message comes. Raises InputError for a bad one."""

    def stop(self) -> list[Output]: ...


@dataclass
class ReplaySummary:
    """What came of a replay. unreadable: inputs that could not be used, by topic."""

    bag: Path
    units: int = 0
    turns: int = 0
    alerts: int = 0
    interruptions: int = 0
    recorded_s: float = 0.0
    wall_s: float = 0.0
    unreadable: dict[str, int] = field(default_factory=dict)
    troubles: Counter[str] = field(default_factory=Counter)

    @property
    def times_real_time(self) -> float:
        return self.recorded_s / self.wall_s if self.wall_s else 0.0


def picture_topic(bag: Bag) -> Topic | None:
    """The pictures that are looked at; where a bag has both, the compressed ones."""
    return next((topic for topic in (IMAGE_COMPRESSED, IMAGE) if bag.counts.get(topic)), None)


def live_through(
    bag: Bag,
    stage: Stage,
    out: str | Path,
    *,
    copy_inputs: bool = True,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> ReplaySummary:
    """Replay a bag into a new one: its inputs, and what the stage made of them.

    Results of an earlier run in the bag are left out. The caller opens and closes the stage.
    Raises `InputError` where the bag holds neither sound nor pictures, or out exists.
    """
    looked_at = picture_topic(bag)
    if looked_at is None and not bag.counts.get(MIC):
        raise InputError(f"bag {bag.path} holds no sound and no pictures: there is nothing to live")
    inputs = [topic for topic in bag.topics if topic in INPUTS]
    began = time.perf_counter()
    bag.faults.clear()
    with BagWriter(out, bag.namespace, overwrite) as writer:
        drive = _Drive(bag, stage, writer)
        drive.start()
        for record in bag.records(inputs):
            drive.advance(record.log_ns)
            if copy_inputs:
                writer.write_raw(record.topic, record.log_ns, record.raw)
            if record.topic in (MIC, looked_at):
                drive.take(record)
            progress((record.log_ns - bag.start_ns) / NS_PER_S)
        drive.finish()
    summary = drive.summary
    summary.recorded_s = (drive.now_ns - bag.start_ns) / NS_PER_S
    summary.wall_s = time.perf_counter() - began
    summary.unreadable = {name: faults.count for name, faults in bag.faults.items()}
    return summary


class _Drive:
    """Where the replay stands, and what has come out so far."""

    def __init__(self, bag: Bag, stage: Stage, writer: BagWriter) -> None:
        self.summary = ReplaySummary(writer.path)
        self.now_ns = bag.start_ns
        self._bag = bag
        self._stage = stage
        self._writer = writer
        self._end_ns: int | None = None  # of the recording, once it has come
        self._empty_units: set[int] = set()
        self._open_turns: set[tuple[int, int]] = set()

    def start(self) -> None:
        self._write(self._stage.start(self.now_ns))

    def advance(self, to_ns: int) -> None:
        """Time goes on to to_ns, tick by tick."""
        for now_ns in _ticks(self.now_ns, to_ns):
            self.now_ns = now_ns
            self._write(self._stage.step(now_ns))

    def take(self, record: Record) -> None:
        """A message comes; one that cannot be used is counted."""
        try:
            self._write(self._stage.step(self.now_ns, record))
        except InputError as error:
            self._bag.count_fault(record.topic, str(error))

    def finish(self) -> None:
        """The bag has ended: its last unit closes, and speech that was begun is heard to its end.

        What is decided on units that begin after the end is left out: nothing is in them, and a
        microphone that ends with its recording has not been lost.
        """
        config = self._stage.timeline
        self._end_ns = self.now_ns
        self.advance(self.now_ns + config.unit_ns + (config.late_ms + 1) * NS_PER_MS)
        limit_ns = self.now_ns + LONGEST_TAIL_NS
        while self._open_turns and self.now_ns < limit_ns:
            self.advance(self.now_ns + TICK_NS)
        self._write(self._stage.stop())

    def _write(self, outputs: list[Output]) -> None:
        for topic, made in outputs:
            if isinstance(made, bytes):
                message = Record(topic, self.now_ns, made).message()
            else:
                message = made
            if isinstance(message, Picture) or self._is_past_the_end(message):
                continue
            self._count(message)
            self._writer.write(topic, self.now_ns, message)

    def _is_past_the_end(self, message: Message) -> bool:
        if self._end_ns is None:
            return False
        if isinstance(message, SpeechChunk):
            return message.unit in self._empty_units
        if not isinstance(message, Decision | Alert):
            return False
        empty = message.stamp_ns - self._stage.timeline.unit_ns >= self._end_ns
        if empty:
            self._empty_units.add(message.unit)
        return empty

    def _count(self, message: Message) -> None:
        summary = self.summary
        if isinstance(message, Decision):
            summary.units += 1
        elif isinstance(message, Alert):
            summary.alerts += message.active
        elif isinstance(message, SpeechChunk):
            summary.turns += message.sequence == 0
            self._open_turns.add((message.epoch, message.turn))
        elif isinstance(message, Playback):
            summary.interruptions += message.event is PlaybackEvent.INTERRUPTED
            if message.event in (PlaybackEvent.INTERRUPTED, PlaybackEvent.FINISHED):
                self._open_turns.discard((message.epoch, message.turn))


def _ticks(from_ns: int, to_ns: int) -> Iterator[int]:
    """Whole multiples of the tick after from_ns and before to_ns, then to_ns itself."""
    if to_ns - from_ns <= LONGEST_PAUSE_NS:
        yield from range((from_ns // TICK_NS + 1) * TICK_NS, to_ns, TICK_NS)
    if to_ns > from_ns:
        yield to_ns

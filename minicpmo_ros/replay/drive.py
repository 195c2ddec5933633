"""Drives a stage through a bag: the loop that both ways of replay share.

A stage is a session with a speaker behind it, with real nodes or without ROS. The driver moves its
time, hands it the bag's messages, and writes what it says into a new bag in an order that depends
on stamps alone. So both stages write the same bytes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
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
    SessionState,
    SpeechChunk,
    State,
)
from minicpmo_ros.replay.bag import Bag, Record
from minicpmo_ros.replay.bag_writer import BagWriter
from minicpmo_ros.replay.progress import Progress, no_progress
from minicpmo_ros.topics import IMAGE, IMAGE_COMPRESSED, INPUTS, MIC, OUTPUTS, Topic
from minicpmo_ros.wire import Message

TICK_NS = 20 * NS_PER_MS  # as the nodes: how often they look at the clock and at the speaker
LONGEST_PAUSE_NS = 3600 * NS_PER_S  # in a longer one the clock leaps instead of ticking
SMALL_REST_NS = 100 * NS_PER_MS  # what a recording holds beyond its last unit by its latency alone
LONGEST_TAIL_NS = 30 * NS_PER_S  # for speech that goes on when the bag has ended
UNIT_NS = NS_PER_S
AFTER_NS = 100 * NS_PER_MS  # after its end a unit closes at the latest, whatever is missing

Output = tuple[Topic, Message]
Watch = Callable[[str, int, "Message | Picture"], None]


def no_watch(topic: str, log_ns: int, message: Message | Picture) -> None:
    """Nobody looks on."""


class Stage(Protocol):
    """What lives through a bag. Times are ns of the bag; a topic's outputs come in order."""

    troubles: Counter[str]

    def start(self, now_ns: int) -> list[Output]: ...

    def step(self, now_ns: int, record: Record | None = None) -> list[Output]: ...

    @property
    def speaking(self) -> bool: ...

    def stop(self, now_ns: int) -> list[Output]: ...

    def close(self) -> None: ...


@dataclass
class ReplaySummary:
    """What came of a replay. raised: numbers of alerts. troubles: how often the session reported
    each kind of problem."""

    bag: Path
    units: int = 0
    turns: int = 0
    interruptions: int = 0
    recorded_s: float = 0.0
    wall_s: float = 0.0
    unreadable: dict[str, int] = field(default_factory=dict)
    raised: set[int] = field(default_factory=set)
    troubles: Counter[str] = field(default_factory=Counter)

    @property
    def alerts(self) -> int:
        """Of which one that was renewed is one."""
        return len(self.raised)

    @property
    def times_real_time(self) -> float:
        return self.recorded_s / self.wall_s if self.wall_s else 0.0

    def count(self, message: Message) -> None:
        self.units += isinstance(message, Decision)
        self.turns += isinstance(message, SpeechChunk) and message.sequence == 0
        if isinstance(message, Alert):
            self.raised.add(message.number)
        self.interruptions += (
            isinstance(message, Playback) and message.event is PlaybackEvent.INTERRUPTED
        )


def drive(
    bag: Bag,
    out: str | Path,
    stage_of: Callable[[Bag, Topic | None], Stage],
    *,
    copy_inputs: bool = True,
    overwrite: bool = False,
    progress: Progress = no_progress,
    watch: Watch = no_watch,
) -> ReplaySummary:
    """Replay a bag into a new one: its inputs, and what the stage made of them.

    stage_of makes the stage, given the bag and the topic of pictures to look at: the compressed
    ones where the bag holds both. Results of an earlier run in the bag are left out. Raises
    `InputError` where the bag holds neither sound nor pictures, or out exists.
    """
    seen = next((topic for topic in (IMAGE_COMPRESSED, IMAGE) if bag.counts.get(topic)), None)
    if seen is None and not bag.counts.get(MIC):
        raise InputError(f"bag {bag.path} holds no sound and no pictures: there is nothing to live")
    inputs = [topic for topic in bag.topics if topic in INPUTS]
    began = time.perf_counter()
    bag.faults.clear()
    with BagWriter(out, bag.namespace, overwrite) as writer:
        summary = ReplaySummary(writer.path)
        stage = stage_of(bag, seen)
        try:
            run = _Run(stage, writer, summary, watch)
            run.begin(bag.start_ns)
            for record in bag.records(inputs):
                run.advance(record.log_ns)
                if copy_inputs:
                    writer.write_raw(record.topic, record.log_ns, record.raw)
                _show(record, watch)
                run.write(stage.step(record.log_ns, record if _used(record, seen) else None))
                progress((record.log_ns - bag.start_ns) / NS_PER_S)
            # A stream that ends with its recording is no trouble.
            summary.troubles = Counter(stage.troubles)
            run.finish()
        finally:
            stage.close()
    summary.recorded_s = (run.now_ns - bag.start_ns) / NS_PER_S
    summary.wall_s = time.perf_counter() - began
    summary.unreadable = {name: faults.count for name, faults in bag.faults.items()}
    return summary


class _Run:
    """One run of a stage: where its time stands, and where its outputs go."""

    def __init__(
        self, stage: Stage, writer: BagWriter, summary: ReplaySummary, watch: Watch
    ) -> None:
        self.now_ns = 0
        self._decided_ns = 0  # end of the last unit decided
        self._end_ns: int | None = None  # of the recording, once it has come
        self._empty_units: set[int] = set()
        self._unwanted_turns: set[tuple[int, int]] = set()
        self._open_turns: set[tuple[int, int]] = set()
        self._stage = stage
        self._writer = writer
        self._summary = summary
        self._watch = watch

    def begin(self, start_ns: int) -> None:
        self.now_ns = self._decided_ns = start_ns
        self.write(self._stage.start(start_ns))

    def advance(self, to_ns: int) -> None:
        """Time goes on to to_ns, tick by tick; the step at to_ns itself is left to the caller."""
        for now_ns in _ticks(self.now_ns, to_ns):
            self.now_ns = now_ns
            self._step()
        self.now_ns = to_ns

    def finish(self) -> None:
        """The last unit closes, and speech that was begun is spoken to its end.

        What is decided on units that begin after the recording is left out: nothing is in them, and
        a microphone that ends with its recording has not been lost.
        """
        self._end_ns = self.now_ns
        rest_ns = self.now_ns - self._decided_ns
        if rest_ns > SMALL_REST_NS:
            end_ns = self._decided_ns - (-rest_ns // UNIT_NS) * UNIT_NS
            self.advance(min(end_ns, self.now_ns + UNIT_NS) + AFTER_NS)
            self._step()
        limit_ns = self.now_ns + LONGEST_TAIL_NS
        while self._open_turns and self._stage.speaking and self.now_ns < limit_ns:
            self.now_ns += TICK_NS
            self._step()
        self.write(self._stage.stop(self.now_ns))

    def _step(self) -> None:
        self.write(self._stage.step(self.now_ns))

    def write(self, outputs: list[Output]) -> None:
        """In the order of topics; within one, as they came."""
        for topic, message in sorted(outputs, key=lambda output: OUTPUTS.index(output[0])):
            if self._is_past_the_end(message):
                continue
            self._writer.write(topic, self.now_ns, message)
            self._note(message)
            self._summary.count(message)
            self._watch(topic.name, self.now_ns, message)

    def _is_past_the_end(self, message: Message) -> bool:
        if self._end_ns is None:
            return False
        if isinstance(message, Decision | Alert):
            if message.stamp_ns - UNIT_NS >= self._end_ns:
                self._empty_units.add(message.unit)
            return message.unit in self._empty_units
        if isinstance(message, SessionState):
            return message.state is State.SPEAKING and message.unit in self._empty_units
        if isinstance(message, SpeechChunk) and message.unit in self._empty_units:
            turn = (message.epoch, message.turn)
            if turn not in self._open_turns:  # one that began before goes on
                self._unwanted_turns.add(turn)
        if isinstance(message, SpeechChunk | Playback):
            return (message.epoch, message.turn) in self._unwanted_turns
        return False

    def _note(self, message: Message) -> None:
        if isinstance(message, Decision):
            self._decided_ns = message.stamp_ns
        elif isinstance(message, SpeechChunk):
            self._open_turns.add((message.epoch, message.turn))
        elif isinstance(message, Playback) and message.event in (
            PlaybackEvent.FINISHED,
            PlaybackEvent.INTERRUPTED,
        ):
            self._open_turns.discard((message.epoch, message.turn))


def _used(record: Record, seen: Topic | None) -> bool:
    return record.topic is MIC or record.topic is seen


def _show(record: Record, watch: Watch) -> None:
    if watch is no_watch or record.topic not in (MIC, IMAGE, IMAGE_COMPRESSED):
        return
    try:
        watch(record.topic.name, record.log_ns, record.message())
    except InputError:
        return  # the stage meets the same message and counts it


def _ticks(from_ns: int, to_ns: int) -> Iterator[int]:
    """Whole multiples of the tick after from_ns and before to_ns."""
    if to_ns - from_ns <= LONGEST_PAUSE_NS:
        yield from range((from_ns // TICK_NS + 1) * TICK_NS, to_ns, TICK_NS)

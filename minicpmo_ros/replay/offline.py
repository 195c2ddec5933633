"""Replay without DDS: a session lives through a bag as fast as the machine can.

A simulated speaker plays what the session says, so the robot hears of its own speech as it would
live. Nothing depends on how fast this runs: the same bag gives the same bytes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from minicpmo_ros.brains.build import build_session
from minicpmo_ros.brains.session import OmniSession
from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.media.clock_speaker import ClockSpeaker
from minicpmo_ros.media.playback import PlayQueue
from minicpmo_ros.media.speaker import SpeakerConfig
from minicpmo_ros.messages import (
    NS_PER_S,
    Alert,
    AudioChunk,
    Decision,
    Picture,
    Playback,
    SessionState,
    SpeechChunk,
    VoiceActivity,
)
from minicpmo_ros.nodes.parameter import Value
from minicpmo_ros.replay.bag import Bag, Record
from minicpmo_ros.replay.drive import Output, ReplaySummary, Watch, drive, no_watch
from minicpmo_ros.replay.parameters import omni_settings
from minicpmo_ros.replay.progress import Progress, no_progress
from minicpmo_ros.topics import ALERT, DECISION, PLAYBACK, PLAYED, SPEECH, STATE, VOICE, Topic
from minicpmo_ros.wire import Message

log = logging.getLogger(__name__)

TOPIC_OF: dict[type, Topic] = {
    Decision: DECISION,
    SpeechChunk: SPEECH,
    Alert: ALERT,
    VoiceActivity: VOICE,
    SessionState: STATE,
    Playback: PLAYBACK,
    AudioChunk: PLAYED,
}

FRAME_ID = "speaker"  # as the speaker node's parameter has it

MakeSession = Callable[[Callable[[Message], None], Callable[[str, str], None]], OmniSession]
"""Makes a session that hands its results to the first and its troubles to the second."""


def default_session(
    pictures: bool = True, parameters: dict[str, Value] | None = None
) -> MakeSession:
    """The session of the omni node, without wall times in its decisions.

    pictures: whether the bag has any; where it has none, no camera is missed. parameters: of the
    node, where they are not its defaults.
    """
    settings = omni_settings(parameters or {})
    if not pictures:
        settings = replace(settings, pictures_per_unit=0)
    return lambda publish, report: build_session(settings, publish, report=report)


def replay_offline(
    bag: Bag,
    out: str | Path,
    make_session: MakeSession | None = None,
    *,
    copy_inputs: bool = True,
    overwrite: bool = False,
    progress: Progress = no_progress,
    watch: Watch = no_watch,
) -> ReplaySummary:
    """Replay a bag into a new one through a session of this process. See `drive.drive`.

    make_session: None makes the omni node's default session. Raises `InputError` where the bag
    holds neither sound nor pictures or out exists, `ConfigError` for a session that would write
    wall times into its decisions, and what the session raises when it is opened.
    """
    return drive(
        bag,
        out,
        lambda bag, pictures: OfflineStage(
            bag, make_session or default_session(pictures is not None)
        ),
        copy_inputs=copy_inputs,
        overwrite=overwrite,
        progress=progress,
        watch=watch,
    )


class OfflineStage:
    """A session and a speaker that are nothing but computation. See `drive.Stage`.

    What cannot be used of the inputs is counted in the bag's faults.
    """

    def __init__(self, bag: Bag, make_session: MakeSession) -> None:
        self.troubles: Counter[str] = Counter()
        self._bag = bag
        self._now_ns = 0
        self._cut = False
        self._outputs: list[Output] = []
        self._queue = PlayQueue()
        self._speaker = ClockSpeaker(SpeakerConfig(sink="clock"), self._queue)
        self.session = make_session(self._publish, self._trouble)
        if self.session.config.timings:
            raise ConfigError("a replay cannot repeat wall times: make the session without timings")
        self.session.open()

    @classmethod
    def for_bag(
        cls, bag: Bag, pictures: Topic | None, parameters: dict[str, Value] | None = None
    ) -> OfflineStage:
        """The stage with the omni node's session; parameters: see `default_session`."""
        return cls(bag, default_session(pictures is not None, parameters))

    def start(self, now_ns: int) -> list[Output]:
        self._now_ns = now_ns
        self._speaker.open()
        self.session.start(now_ns)
        return self._collect()

    def step(self, now_ns: int, record: Record | None = None) -> list[Output]:
        """Time goes on to now_ns for speaker and session; then the message comes."""
        if now_ns != self._now_ns:
            self._now_ns = now_ns
            self._play()
            self.session.clock(now_ns)
        if record is not None:
            try:
                self._take(record)
            except InputError as error:
                self._bag.count_fault(record.topic, str(error))
        if self._cut:  # the speaker node, too, reports at once what it cut off
            self._cut = False
            self._play()
        return self._collect()

    @property
    def speaking(self) -> bool:
        """Speech still sounds or waits."""
        return not self._queue.idle

    def stop(self, now_ns: int) -> list[Output]:
        self._now_ns = now_ns
        self.session.stop(now_ns)
        self._play()
        return self._collect()

    def close(self) -> None:
        self._speaker.close()
        self.session.close()

    def _take(self, record: Record) -> None:
        message = record.message()
        if isinstance(message, AudioChunk):
            self.session.audio(message, self._now_ns)
        elif isinstance(message, Picture):
            self.session.picture(message, self._now_ns)

    def _play(self) -> None:
        self._speaker.advance(self._now_ns)
        for report in self._queue.reports():
            self._outputs.append((PLAYBACK, report))
            self.session.playback(report)
        for chunk in self._queue.played():
            self._outputs.append((PLAYED, replace(chunk, frame_id=FRAME_ID)))

    def _publish(self, message: Message) -> None:
        self._outputs.append((TOPIC_OF[type(message)], message))
        if isinstance(message, SpeechChunk):
            self._queue.push(message)
        elif isinstance(message, SessionState) and message.epoch > self._queue.epoch:
            self._queue.interrupt(message.epoch)
            self._cut = True

    def _trouble(self, kind: str, text: str) -> None:
        self.troubles[kind] += 1
        log.info("%.3f s: %s: %s", self._now_ns / NS_PER_S, kind, text)

    def _collect(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs

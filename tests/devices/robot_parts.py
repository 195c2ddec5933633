"""The mic and the speaker node on the virtual devices, and a client of the omni node's say."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from rclpy.action import ActionClient

from minicpmo_ros import topics, wire
from minicpmo_ros.action import Say
from minicpmo_ros.messages import AudioChunk, Playback, PlaybackEvent, SessionState, SpeechChunk
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.ros_types import TYPES
from minicpmo_ros.nodes.speaker import SpeakerNode
from minicpmo_ros.wire import to_ros
from tests.devices.pulse import PulseServer
from tests.nodes.robot import Robot

# A machine that is busy with other tests must not lose samples; delay costs nothing here.
PATIENT_MS = 300


def speak(robot: Robot, pulse: PulseServer, samples: np.ndarray) -> tuple[int, int]:
    """Play int16 samples of 16 kHz into the microphone while the nodes live on.

    Returns the time just before and just after, in ns.
    """
    with ThreadPoolExecutor(1) as pool:
        spoken = pool.submit(pulse.speak, samples)
        robot.until(spoken.done, "the wav to be played")
        return spoken.result()


class Ears:
    """An active mic node on robot_mic, and what it has published."""

    def __init__(self, robot: Robot, **parameters: Any) -> None:
        self._robot = robot
        self._heard = robot.hear(topics.MIC)
        device = {"source": "device", "device": "robot_mic", "latency_ms": PATIENT_MS}
        self.node = robot.run(MicNode, **{**device, **parameters})
        robot.until(lambda: self._heard, "sound")

    @property
    def chunks(self) -> list[AudioChunk]:
        return [wire.audio_chunk(message) for message in self._heard]

    def wait(self, count: int) -> None:
        """Until so many more chunks have come."""
        enough = len(self._heard) + count
        self._robot.until(lambda: len(self._heard) >= enough, f"{count} chunks of sound")


class Mouth:
    """An active speaker node on robot_speaker, what it is told, and what it tells."""

    def __init__(self, robot: Robot, **parameters: Any) -> None:
        self._robot = robot
        self._talk = {t: robot.talk(t) for t in (topics.SPEECH, topics.STATE)}
        self._reports = robot.hear(topics.PLAYBACK)
        self._played = robot.hear(topics.PLAYED)
        device = {"sink": "device", "device": "robot_speaker", "latency_ms": PATIENT_MS}
        self.node = robot.run(SpeakerNode, **{**device, **parameters})
        robot.until(
            lambda: (
                all(publisher.get_subscription_count() for publisher in self._talk.values())
                and self.node.readers(topics.PLAYBACK)
                and self.node.readers(topics.PLAYED)
            ),
            "the speaker node to be connected",
        )

    @property
    def reports(self) -> list[Playback]:
        return [wire.playback(message) for message in self._reports]

    @property
    def played(self) -> list[AudioChunk]:
        return [wire.audio_chunk(message) for message in self._played]

    def tell(self, message: SpeechChunk | SessionState) -> None:
        topic = topics.SPEECH if isinstance(message, SpeechChunk) else topics.STATE
        self._talk[topic].publish(to_ros(message, TYPES))

    def wait(self, event: PlaybackEvent, turn: int) -> Playback:
        """The first such report of a turn."""
        return self._robot.until(
            lambda: next((r for r in self.reports if (r.event, r.turn) == (event, turn)), None),
            f"{event.name} of turn {turn}",
        )

    def wait_heard(self, turn: int, words: str) -> None:
        """Until these words of a turn have been heard."""
        self._robot.until(
            lambda: any(r.turn == turn and words in r.heard for r in self.reports),
            f"{words!r} of turn {turn}",
        )


class Saying:
    """A say goal of the omni node, accepted."""

    def __init__(self, robot: Robot, text: str) -> None:
        self._robot = robot
        self._client = ActionClient(robot.friend, Say, "say")
        robot.until(self._client.server_is_ready, "the action say")
        sent = self._client.send_goal_async(Say.Goal(text=text))
        robot.until(sent.done, "an answer to the goal")
        self._result = sent.result().get_result_async()

    @property
    def ended(self) -> bool:
        return bool(self._result.done())

    def end(self) -> Any:
        """The result, when it has come."""
        self._robot.until(self._result.done, "the end of what is said")
        self._client.destroy()
        return self._result.result().result


def placed(chunks: Sequence[AudioChunk], rate_hz: int, begin_ns: int, end_ns: int) -> np.ndarray:
    """Chunks of one rate laid where their stamps say: int16 [samples] from begin_ns to end_ns."""
    line = np.zeros((end_ns - begin_ns) * rate_hz // 1_000_000_000, dtype=np.int16)
    for chunk in chunks:
        first = round((chunk.stamp_ns - begin_ns) * rate_hz / 1e9)
        if first >= 0 and first + len(chunk.data) <= len(line):
            line[first : first + len(chunk.data)] = chunk.data
    return line

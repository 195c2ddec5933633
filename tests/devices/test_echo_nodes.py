"""The robot in a room: does it hear itself, and does it still hear a person?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

try:
    import rclpy  # noqa: F401
except ImportError as error:
    if os.environ.get("CI") == "true":
        raise
    pytest.skip(f"no ROS 2 here ({error}): `make setup` installs it", allow_module_level=True)

from minicpmo_ros import topics, wire
from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.media.resample import resample
from minicpmo_ros.messages import (
    MIC_RATE_HZ,
    NS_PER_MS,
    NS_PER_S,
    SPEECH_RATE_HZ,
    PlaybackEvent,
    VoiceActivity,
)
from minicpmo_ros.nodes.omni import OmniNode
from tests.devices.pulse import PulseServer, Room
from tests.devices.robot_parts import Ears, Mouth, Saying, placed, speak
from tests.nodes.robot import Robot, values

SHORT = "Let me tell you what I have seen today on my way."
LONG = (
    "There was an old ship in the harbour, and on it stood a man with a red hat, "
    "who looked at the sea and did not say a word."
)
ECHO_MS = 40


@pytest.fixture
def person() -> np.ndarray:
    """A person's words, int16 at 16 kHz."""
    try:
        said = Synthesiser("en-us+f3").speak("Stop, please stop, I want to say something now.")
    except DeviceError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    return resample(said.data, SPEECH_RATE_HZ, MIC_RATE_HZ)


class Conversation:
    """Mic, omni and speaker node in a room that gives back half of what the speaker plays."""

    def __init__(self, robot: Robot, room: Room, echo_cancellation: str) -> None:
        self.robot = robot
        room.open(delay_ms=ECHO_MS, volume=0.8)
        self._voice = robot.hear(topics.VOICE)
        self._states = robot.hear(topics.STATE)
        self.ears = Ears(robot, latency_ms=60, echo_cancellation=echo_cancellation)
        self.ears.wait(10)
        # The robot says what it is asked to and nothing else.
        self.omni = robot.run(
            OmniNode,
            brain="reflex",
            image_transport="none",
            spoken_severity="never",
            barge_in_ms=0,
        )
        self.mouth = Mouth(robot)

    def say_at_first(self) -> None:
        """The first words: clocks settle, and the canceller learns the room."""
        assert Saying(self.robot, SHORT).end().message == "heard to the end"

    def arm(self) -> None:
        assert self.robot.set_parameters(self.omni, barge_in_ms=200).successful

    @property
    def voices(self) -> list[VoiceActivity]:
        return [wire.voice_activity(message) for message in self._voice]

    @property
    def last_reason(self) -> str:
        return self._states[-1].detail

    def echo(self, name: str) -> float:
        """A figure of the canceller, as the mic node's diagnostics have it now."""
        status: Any = self.robot.diagnosis("/mic: echo")
        return float(values(status)[name])


@pytest.fixture
def robot(pulse: PulseServer, person: np.ndarray) -> Iterator[Robot]:
    with Robot() as made:
        yield made


def test_the_robot_does_not_hear_itself(robot: Robot, room: Room) -> None:
    talk = Conversation(robot, room, echo_cancellation="on")
    talk.say_at_first()
    talk.arm()
    for _ in range(3):
        before, late_ms = len(talk.voices), talk.echo("late_ms")
        result = Saying(robot, LONG).end()
        if talk.echo("late_ms") == late_ms:
            break  # else the machine is so busy that the canceller learnt too late what was played
    assert result.message == "heard to the end"
    assert result.heard == LONG
    assert [voice for voice in talk.voices[before:] if voice.speaking] == []
    assert talk.echo("reduction_db") > 15.0


def test_a_person_who_speaks_over_the_robot_stops_it(
    robot: Robot, room: Room, pulse: PulseServer, person: np.ndarray
) -> None:
    talk = Conversation(robot, room, echo_cancellation="on")
    talk.say_at_first()
    talk.arm()
    saying = Saying(robot, LONG)
    talk.mouth.wait_heard(2, "old ship")
    assert not saying.ended
    before_ns, after_ns = speak(robot, pulse, person)
    result = saying.end()
    assert (result.success, result.message) == (False, "cut off before its end")
    assert "old ship" in result.heard
    assert len(result.heard) < len(LONG) - len("did not say a word.")
    assert talk.omni.session.interruptions == 1
    cut = talk.mouth.wait(PlaybackEvent.INTERRUPTED, 2)
    heard = next(v for v in talk.voices if v.speaking and v.stamp_ns > before_ns - NS_PER_S // 2)
    assert before_ns - 300 * NS_PER_MS < heard.stamp_ns < cut.stamp_ns < after_ns + NS_PER_S


def test_without_the_canceller_the_robot_hears_itself_and_its_echo_comes_when_it_should(
    robot: Robot, room: Room
) -> None:
    talk = Conversation(robot, room, echo_cancellation="off")
    talk.say_at_first()
    assert any(voice.speaking for voice in talk.voices)
    # By the stamps of both ends the echo follows the sound as it does in the room.
    end_ns = time.time_ns()
    begin_ns = end_ns - 2 * NS_PER_S
    played = resample(
        placed(talk.mouth.played, SPEECH_RATE_HZ, begin_ns, end_ns), SPEECH_RATE_HZ, MIC_RATE_HZ
    )
    heard = placed(talk.ears.chunks, MIC_RATE_HZ, begin_ns, end_ns)
    assert 0.0 < lag_ms(played, heard) < 5 * ECHO_MS

    talk.arm()
    result = Saying(robot, LONG).end()
    assert (result.success, result.message) == (False, "cut off before its end")
    assert talk.last_reason == "barge-in: somebody speaks"


def lag_ms(sound: np.ndarray, echo: np.ndarray) -> float:
    """By how much int16 `echo` follows `sound`, both at 16 kHz, where they are most alike."""
    size = 2 * len(sound)
    spectrum = np.fft.rfft(echo, size) * np.conj(np.fft.rfft(sound, size))
    alike = np.fft.irfft(spectrum, size)
    lag = int(np.argmax(np.abs(alike)))
    return (lag - size if lag > len(sound) else lag) * 1000.0 / MIC_RATE_HZ

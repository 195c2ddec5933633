"""The mic, omni and speaker nodes on real PortAudio devices: what goes in comes out."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

try:
    import rclpy  # noqa: F401
except ImportError as error:
    if os.environ.get("CI") == "true":
        raise
    pytest.skip(f"no ROS 2 here ({error}): `make setup` installs it", allow_module_level=True)

from minicpmo_ros import topics, wire
from minicpmo_ros.media.playback import FADE_SAMPLES
from minicpmo_ros.messages import (
    NS_PER_MS,
    NS_PER_S,
    SPEECH_RATE_HZ,
    PlaybackEvent,
    SessionState,
    SpeechChunk,
    State,
    WordMark,
)
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.srv import Interrupt
from tests.devices.pulse import PulseServer
from tests.devices.robot_parts import Ears, Mouth, Saying, speak
from tests.devices.sound import gaps, joined, noise, place, stamp_of
from tests.nodes.robot import Robot, level

WORD_SAMPLES = SPEECH_RATE_HZ // 5
UNTOUCHED = {"echo_cancellation": "off", "noise_suppression": False}


@pytest.fixture
def robot(pulse: PulseServer) -> Iterator[Robot]:
    with Robot() as made:
        yield made


def speech(text: str, turn: int = 1, epoch: int = 0, seed: int = 7) -> list[SpeechChunk]:
    """A turn of noise, 200 ms a word, three words a chunk."""
    words = text.split()
    samples = noise(len(words) * 0.2, SPEECH_RATE_HZ, seed)
    samples[-1] = 0  # so that nothing has to be faded out
    chunks = []
    for first in range(0, len(words), 3):
        some = words[first : first + 3]
        marks = [
            WordMark(word, k * WORD_SAMPLES, (k + 1) * WORD_SAMPLES) for k, word in enumerate(some)
        ]
        chunks.append(
            SpeechChunk(
                stamp_ns=time.time_ns(),
                epoch=epoch,
                turn=turn,
                sequence=len(chunks),
                unit=0,
                data=samples[first * WORD_SAMPLES : (first + len(some)) * WORD_SAMPLES],
                text=" ".join(some),
                words=tuple(marks),
                last=first + 3 >= len(words),
            )
        )
    return chunks


def heard_of(text: str, samples: int) -> str:
    """The words of `speech(text)` that have sounded to their end with so many samples."""
    return " ".join(text.split()[: samples // WORD_SAMPLES])


def test_a_wav_arrives_sample_exact_and_with_its_time(robot: Robot, pulse: PulseServer) -> None:
    spoken = noise(1.5)
    ears = Ears(robot, **UNTOUCHED)
    ears.wait(15)
    before_ns, after_ns = speak(robot, pulse, spoken)
    ears.wait(8)
    chunks = ears.chunks
    heard = joined(chunks)
    first = place(spoken, heard)
    assert not heard[:first].any()
    assert not heard[first + len(spoken) :].any()
    # No message was lost, and a stamp that is corrected is one that is admitted.
    assert [chunk.sequence - chunks[0].sequence for chunk in chunks] == list(range(len(chunks)))
    assert {(len(chunk.data), chunk.frame_id) for chunk in chunks} == {(1600, "microphone")}
    assert gaps(chunks) <= ears.node._microphone.status.jumps
    # It sounded after it was begun, and as long before its end as it takes to play: as far as the
    # latency is true that the sound server reports, which wanders by tens of ms.
    slack_ns = 300 * NS_PER_MS
    first_ns = stamp_of(chunks, first)
    assert before_ns - slack_ns < first_ns < after_ns - round(1.5 * NS_PER_S) + slack_ns


def test_speech_sounds_as_it_was_sent_and_the_account_says_so(
    robot: Robot, pulse: PulseServer
) -> None:
    text = "one two three four five six seven"
    mouth = Mouth(robot)
    with pulse.recording() as recorded:
        turn = speech(text)
        samples = np.concatenate([chunk.data for chunk in turn])
        for chunk in turn:
            mouth.tell(chunk)
        finished = mouth.wait(PlaybackEvent.FINISHED, 1)
        robot.until(lambda: np.count_nonzero(recorded()) >= len(samples) - 1, "the recording")
        heard = recorded()
    first = place(samples, heard)
    assert not heard[:first].any()
    assert not heard[first + len(samples) :].any()

    reports = mouth.reports
    events = [report.event for report in reports]
    assert events[0] is PlaybackEvent.STARTED
    assert events[-1] is PlaybackEvent.FINISHED
    assert set(events[1:-1]) == {PlaybackEvent.PLAYING}
    assert [report.heard for report in reports] == [
        heard_of(text, report.turn_samples) for report in reports
    ]
    # At least every 100 ms, each stamped with the time at which its last sample sounded.
    counts = [report.turn_samples for report in reports]
    assert max(np.diff(counts)) <= SPEECH_RATE_HZ // 10
    assert counts == sorted(counts)
    for report in reports:
        sounded_ns = report.turn_samples * NS_PER_S // SPEECH_RATE_HZ
        assert abs(report.stamp_ns - reports[0].stamp_ns - sounded_ns) < NS_PER_MS
    assert finished.turn_samples == len(samples)
    assert finished.concealed_samples == 0

    # audio/played is the same sound at the same time; its last chunk is filled up with silence.
    robot.until(lambda: len(joined(mouth.played)) >= len(samples), "all that was played")
    played = joined(mouth.played)
    np.testing.assert_array_equal(played[: len(samples)], samples)
    assert not played[len(samples) :].any()
    assert abs(mouth.played[0].stamp_ns - reports[0].stamp_ns) < NS_PER_MS
    assert gaps(mouth.played) == 0


def assert_silent_after(cut_samples: int, samples: np.ndarray, heard: np.ndarray) -> None:
    """What was recorded is the speech up to the cut, a fade of 3 ms, and silence."""
    tail = heard[place(samples[:cut_samples], heard) + cut_samples :]
    assert len(tail) > SPEECH_RATE_HZ // 4
    assert not tail[FADE_SAMPLES:].any()


def test_a_grown_epoch_silences_the_device_in_the_middle_of_a_word(
    robot: Robot, pulse: PulseServer
) -> None:
    text = " ".join(f"word{k}" for k in range(20))
    mouth = Mouth(robot)
    with pulse.recording() as recorded:
        turn = speech(text)
        samples = np.concatenate([chunk.data for chunk in turn])
        for chunk in turn:
            mouth.tell(chunk)
        mouth.wait_heard(1, "word2")
        mouth.tell(SessionState(time.time_ns(), State.LISTENING, epoch=1, turn=1))
        cut = mouth.wait(PlaybackEvent.INTERRUPTED, 1)
        # More of the old epoch is on its way, and stays silent.
        mouth.tell(speech("too late", turn=2, epoch=0, seed=8)[0])
        still = len(recorded()) + SPEECH_RATE_HZ
        robot.until(lambda: len(recorded()) >= still, "a second more")
        heard = recorded()
        robot.until(lambda: mouth.node._stale == 1, "the late chunk to be refused")
    assert_silent_after(cut.turn_samples, samples, heard)
    assert "word2" in cut.heard
    assert cut.heard == heard_of(text, cut.turn_samples)
    assert cut.turn_samples < len(samples) / 2
    assert mouth.reports[-1] == cut


def test_the_interrupt_service_silences_what_is_being_said_and_the_next_is_heard(
    robot: Robot, pulse: PulseServer
) -> None:
    mouth = Mouth(robot)
    # Of the four nodes only two are here: what the robot misses it keeps to itself.
    robot.run(OmniNode, image_transport="none", spoken_severity="never")
    sent = robot.hear(topics.SPEECH)
    with pulse.recording() as recorded:
        saying = Saying(robot, "one two three four five six seven eight nine ten eleven twelve")
        mouth.wait_heard(1, "two three")
        answer = robot.call(Interrupt, "interrupt", reason="enough")
        cut = mouth.wait(PlaybackEvent.INTERRUPTED, 1)
        result = saying.end()
        still = len(recorded()) + SPEECH_RATE_HZ
        robot.until(lambda: len(recorded()) >= still, "a second more")
        heard = recorded()
    assert (answer.success, answer.epoch) == (True, 1)
    assert (result.success, result.message) == (False, "cut off before its end")
    # The goal ends with the interruption; a word that was under way may have been finished by it.
    assert cut.heard.startswith(result.heard)
    assert result.heard.startswith("one two three")
    assert "twelve" not in cut.heard
    samples = np.concatenate([wire.speech_chunk(message).data for message in sent])
    assert_silent_after(cut.turn_samples, samples, heard)

    again = Saying(robot, "once more").end()
    assert (again.success, again.heard, again.turn) == (True, "once more", 2)


def test_nodes_outlive_their_devices(robot: Robot, pulse: PulseServer) -> None:
    ears, mouth = Ears(robot, **UNTOUCHED), Mouth(robot)
    for chunk in speech(" ".join(["gone"] * 50), turn=1):
        mouth.tell(chunk)
    mouth.wait(PlaybackEvent.STARTED, 1)
    pulse.stop(how=9)
    # Nobody hears it any more, and the account says so instead of waiting for ever.
    cut = mouth.wait(PlaybackEvent.INTERRUPTED, 1)
    assert cut.turn_samples < 50 * WORD_SAMPLES
    for name in ("/mic: device", "/speaker: device"):
        lost = robot.diagnosis(name, of=lambda status: "lost" in status.message)
        assert level(lost) == 1
        assert "robot_" in lost.message
    pulse.start()
    for name in ("/mic: device", "/speaker: device"):
        robot.diagnosis(name, of=lambda status: level(status) == 0)
    assert ears.node.active
    assert mouth.node.active

    ears.wait(15)
    before = len(ears.chunks)
    spoken = noise(0.5, seed=3)
    speak(robot, pulse, spoken)
    ears.wait(8)
    place(spoken, joined(ears.chunks[before:]))
    said = speech("here again", turn=2, seed=9)[0]
    with pulse.recording() as recorded:
        mouth.tell(said)
        assert mouth.wait(PlaybackEvent.FINISHED, 2).heard == "here again"
        robot.until(lambda: np.count_nonzero(recorded()) >= len(said.data) - 1, "the recording")
        place(said.data, recorded())

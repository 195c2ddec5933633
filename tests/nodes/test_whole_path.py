"""From camera and microphone through the brain to the speaker, with every node real."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile

from minicpmo_ros import topics
from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.nodes.camera import CameraNode
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.run import bring_up
from minicpmo_ros.nodes.speaker import SpeakerNode
from minicpmo_ros.wire import stamp_ns
from tests.nodes.robot import Robot

CALIBRATION = """
image_width: 64
image_height: 48
camera_matrix: {rows: 3, cols: 3, data: [50, 0, 31.5, 0, 50, 23.5, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}
"""


@pytest.fixture
def question(tmp_path):
    """A wav of somebody who speaks for two seconds, and then listens."""
    from minicpmo_ros.errors import DeviceError
    from minicpmo_ros.media.espeak import Synthesiser
    from minicpmo_ros.media.resample import resample

    try:
        said = Synthesiser().speak("Hello robot, can you tell me what you see in front of you?")
    except DeviceError as error:
        pytest.skip(f"no speech synthesiser: {error}")
    speech = resample(said.data, said.rate_hz, 16000)
    silence = np.zeros(16000, np.int16)
    path = tmp_path / "question.wav"
    soundfile.write(path, np.concatenate([silence, speech, *[silence] * 12]), 16000)
    return path


def test_a_robot_hears_a_question_and_its_answer_is_heard(question):
    with Robot() as robot:
        camera, mic = robot.add(CameraNode), robot.add(MicNode, source=f"file:{question}")
        omni, speaker = robot.add(OmniNode), robot.add(SpeakerNode)
        heard = {topic: robot.hear(topic) for topic in topics.OUTPUTS}
        for node in (speaker, omni, camera, mic):
            assert bring_up(node), node.failure
        reports = heard[topics.PLAYBACK]
        robot.until(lambda: reports and reports[-1].event == reports[-1].FINISHED, "the answer")
        whole = np.concatenate([c.data for c in heard[topics.SPEECH]])
        played = heard[topics.PLAYED]
        robot.until(lambda: sum(len(c.data) for c in played) >= len(whole), "the last of it")

    decisions = heard[topics.DECISION]
    assert [d.unit for d in decisions] == list(range(len(decisions)))
    ends_ns = [stamp_ns(d.header.stamp) for d in decisions]
    assert {b - a for a, b in itertools.pairwise(ends_ns)} == {NS_PER_S}
    assert any(d.pictures for d in decisions)
    assert any(t.stage == "brain" for d in decisions for t in d.timings)
    spoken = [d for d in decisions if d.action == d.SPEAK]
    assert spoken[0].text

    starts = [v for v in heard[topics.VOICE] if v.speaking]
    stops = [v for v in heard[topics.VOICE] if not v.speaking]
    assert starts
    assert stops
    assert stamp_ns(starts[0].header.stamp) < stamp_ns(stops[-1].header.stamp)
    # It waited for the end of what was said.
    assert stamp_ns(stops[-1].header.stamp) <= stamp_ns(spoken[0].header.stamp)

    speech = heard[topics.SPEECH]
    assert [c.sequence for c in speech] == list(range(len(speech)))
    assert [c.last for c in speech] == [False] * (len(speech) - 1) + [True]
    assert " ".join(c.text for c in speech) == spoken[0].text
    assert stamp_ns(speech[0].header.stamp) == stamp_ns(spoken[0].header.stamp)

    assert reports[0].event == reports[0].STARTED
    assert reports[-1].heard == spoken[0].text
    assert reports[-1].turn_samples == sum(len(c.data) for c in speech)
    assert np.array_equal(np.concatenate([c.data for c in played])[: len(whole)], whole)

    states = [s.state for s in heard[topics.STATE]]
    assert states[0] == 1  # listening
    assert 2 in states  # speaking


def test_pictures_come_raw_and_compressed_with_the_calibration(robot, tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text(CALIBRATION)
    robot.run(CameraNode, camera_info=str(path), frame_id="eye", width=128, height=96)
    raw, info = robot.hear(topics.IMAGE), robot.hear(topics.CAMERA_INFO)
    compressed = robot.hear(topics.IMAGE_COMPRESSED)
    robot.until(lambda: len(raw) > 3 and len(info) > 3 and len(compressed) > 3, "pictures")
    by_stamp = {stamp_ns(m.header.stamp): m for m in info}
    picture = next(m for m in reversed(raw) if stamp_ns(m.header.stamp) in by_stamp)
    about = by_stamp[stamp_ns(picture.header.stamp)]
    assert (picture.encoding, picture.width, picture.height, picture.step) == ("rgb8", 128, 96, 384)
    assert len(picture.data) == 96 * 384
    assert picture.header.frame_id == about.header.frame_id == "eye"
    # The calibration of 64 x 48 was scaled to the picture.
    assert (about.width, about.height) == (128, 96)
    assert about.k[0] == pytest.approx(100.0)
    assert list(about.d) == [0.1, 0, 0, 0, 0]
    assert compressed[0].format.startswith("rgb8; jpeg")
    assert bytes(compressed[0].data[:2]) == b"\xff\xd8"


def test_the_calibration_alone_can_be_listened_to(robot):
    robot.run(CameraNode)
    info = robot.hear(topics.CAMERA_INFO)
    robot.until(lambda: info, "the calibration")
    assert list(info[0].k) == [0.0] * 9  # which means: not calibrated


@pytest.mark.parametrize("transport, topic", [("raw", "image_raw"), ("compressed", "compressed")])
def test_the_omni_node_looks_at_the_pictures_it_was_told_to(robot, transport, topic):
    camera, omni = robot.run(CameraNode), robot.run(OmniNode, image_transport=transport)
    mic = robot.run(MicNode)
    decisions = robot.hear(topics.DECISION)
    robot.until(lambda: any(d.pictures for d in decisions), "a unit with a picture")
    looked = topics.IMAGE if transport == "raw" else topics.IMAGE_COMPRESSED
    other = topics.IMAGE_COMPRESSED if transport == "raw" else topics.IMAGE
    assert camera.readers(looked) == 1
    assert camera.readers(other) == 0
    assert camera.traffic.sent[other.name] == 0
    assert mic.traffic.sent[topics.MIC.name] > 0
    assert omni.traffic.received[looked.name] > 0


def test_without_pictures_wanted_none_is_sent_and_none_is_missed(simulation):
    camera = simulation.run(CameraNode)
    omni = simulation.run(OmniNode, image_transport="none")
    decisions = simulation.hear(topics.DECISION)
    simulation.until(lambda: omni.readers(topics.DECISION), "the listener")
    simulation.tick(simulation.now_ns)
    simulation.live(4.0, until=lambda: len(decisions) >= 2)
    assert not any(d.pictures for d in decisions)
    assert camera.traffic.sent[topics.IMAGE.name] == 0
    assert omni.session.timeline.camera_lost_ms(simulation.now_ns) == 0.0

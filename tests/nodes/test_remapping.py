"""Foreign drivers come in by remapping, and stacks in namespaces do not hear each other."""

from __future__ import annotations

import numpy as np
import pytest

from minicpmo_ros import topics
from minicpmo_ros.nodes.camera import CameraNode, image_message
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.ros_types import header
from minicpmo_ros.nodes.speaker import SpeakerNode
from tests.nodes.robot import NS_PER_S, Robot, tone


@pytest.fixture
def remapped(request):
    rules = [part for rule in request.param for part in ("-r", rule)]
    with Robot(["--ros-args", *rules]) as robot:
        robot.simulate()
        yield robot


RULES = ["image_raw:=/usb_cam/image_raw", "audio/mic:=/audio_driver/chunks"]


@pytest.mark.parametrize("remapped", [RULES], indirect=True)
def test_foreign_camera_and_audio_drivers_are_heard_by_remapping(remapped):
    omni = remapped.run(OmniNode)
    pictures = remapped.talk(topics.IMAGE, "/usb_cam/image_raw")
    sound = remapped.talk(topics.MIC, "/audio_driver/chunks")
    decisions = remapped.hear(topics.DECISION)
    remapped.until(
        lambda: (
            pictures.get_subscription_count()
            and sound.get_subscription_count()
            and omni.readers(topics.DECISION)
        ),
        "the omni node",
    )
    remapped.tick(remapped.now_ns)
    received = omni.traffic.received
    seen_ns = remapped.now_ns
    picture = np.full((48, 64, 3), 90, np.uint8)
    for _ in range(25):
        remapped.tick(remapped.now_ns + 100_000_000)
        before = received["audio/mic"], received["image_raw"]
        sound.publish(remapped.chunk(remapped.now_ns - 100_000_000, tone(0.1)))
        pictures.publish(image_message(picture, header(remapped.now_ns, "usb_cam")))
        remapped.until(
            lambda before=before: (
                received["audio/mic"] > before[0] and received["image_raw"] > before[1]
            ),
            "both to arrive",
        )
    remapped.until(lambda: len(decisions) >= 2, "decisions")
    assert decisions[1].audio_filled_ms == 0.0
    stamp = decisions[1].pictures[0]
    assert stamp.sec * NS_PER_S + stamp.nanosec > seen_ns


@pytest.mark.parametrize("remapped", [["audio/speech:=/tts/speech"]], indirect=True)
def test_a_rule_moves_what_the_stack_publishes(remapped):
    omni = remapped.run(OmniNode)
    speech: list = []
    kind = type(remapped.talk(topics.SPEECH).msg_type())
    remapped.friend.create_subscription(kind, "/tts/speech", speech.append, 10)
    remapped.until(lambda: omni.readers(topics.SPEECH), "the listener")
    remapped.tick(remapped.now_ns)
    omni.session.say("hello", remapped.now_ns)
    remapped.until(lambda: speech, "the speech")


def test_two_stacks_in_two_namespaces_do_not_hear_each_other(simulation):
    left, right = "/left", "/right"
    omnis = {space: simulation.run(OmniNode, space) for space in (left, right)}
    speakers = {space: simulation.run(SpeakerNode, space) for space in (left, right)}
    speech = {space: simulation.hear(topics.SPEECH, space) for space in (left, right)}
    reports = {space: simulation.hear(topics.PLAYBACK, space) for space in (left, right)}
    for space in (left, right):
        simulation.until(lambda s=space: omnis[s].readers(topics.SPEECH) == 2, "its speaker")
        simulation.until(lambda s=space: speakers[s].readers(topics.PLAYBACK) == 2, "its omni")
    simulation.tick(simulation.now_ns)
    omnis[left].session.say("hello", simulation.now_ns)
    assert simulation.live(
        3.0, until=lambda: reports[left] and reports[left][-1].event == reports[left][-1].FINISHED
    )
    assert reports[left][-1].heard == "hello"
    assert speech[right] == []
    assert reports[right] == []
    assert not speakers[right].queue.queued_samples
    assert omnis[left].session.interrupt("test", simulation.now_ns).epoch == 0
    for kind in ("node", "brain"):
        assert simulation.diagnosis(f"{left}/omni: {kind}")
        assert simulation.diagnosis(f"{right}/omni: {kind}")


def test_the_same_names_in_two_namespaces_are_no_twins(robot):
    for space in ("/left", "/right"):
        for kind in (CameraNode, MicNode):
            robot.run(kind, space)
    assert robot.diagnosis("/left/mic: node").message == "active"
    assert robot.diagnosis("/right/camera: node").message == "active"

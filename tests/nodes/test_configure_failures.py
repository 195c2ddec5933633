"""on_configure fails with the reason, says so on /diagnostics, and works once the cause is gone."""

from __future__ import annotations

import sys

import pytest

from minicpmo_ros import topics
from minicpmo_ros.brains import build
from minicpmo_ros.errors import BrainError
from minicpmo_ros.nodes.base import FAILURE, SUCCESS
from minicpmo_ros.nodes.camera import CameraNode
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.speaker import SpeakerNode
from tests.nodes.robot import level, our_threads

# node, parameters, what the reason must name, parameters that mend it
FAILURES = [
    (CameraNode, {"source": "v4l2:/dev/video77"}, "/dev/video77", {"source": "synthetic"}),
    (CameraNode, {"source": "file:/nowhere.mp4"}, "/nowhere.mp4 does not exist", {}),
    (CameraNode, {"source": "folder:/nowhere"}, "/nowhere does not exist", {}),
    (CameraNode, {"source": "webcam"}, "it would be v4l2:/dev/video0", {"source": "synthetic"}),
    (CameraNode, {"camera_info": "/nowhere.yaml"}, "/nowhere.yaml cannot be read", {}),
    (MicNode, {"source": "file:/nowhere.wav"}, "/nowhere.wav does not exist", {}),
    (MicNode, {"source": "file:~/nowhere.wav"}, "/nowhere.wav does not", {"source": "silence"}),
    (MicNode, {"source": "telephone"}, "must be device, silence or file:PATH", {}),
    (SpeakerNode, {"sink": "file:/nowhere/x.wav"}, "/nowhere/x.wav", {"sink": "clock"}),
    (SpeakerNode, {"sink": "file:/tmp/x.mp3"}, "must end in .wav", {"sink": "clock"}),
    (OmniNode, {"brain": "genius"}, "'genius' is not one of reflex, local", {"brain": "reflex"}),
    (OmniNode, {"brain": "reflex", "prompt": "Be brief."}, "takes no prompt", {"prompt": ""}),
    (OmniNode, {"mode": "chat"}, "mode 'chat': the brain 'reflex' can do duplex", {}),
    (OmniNode, {"late_ms": 1001}, "1001 is out of range; 0 to 1000 ms", {"late_ms": 80}),
    (OmniNode, {"late_ms": "soon"}, "'soon' is of type str; a int", {"late_ms": 80}),
    (OmniNode, {"publish_timings": 1}, "1 is of type int; a bool", {"publish_timings": True}),
    (MicNode, {"diagnostics_hz": 99.0}, "0.1 to 10 Hz", {"diagnostics_hz": 5.0}),
]


@pytest.mark.parametrize(
    "kind, wrong, reason, mended", FAILURES, ids=lambda x: str(x) if isinstance(x, dict) else ""
)
def test_a_node_says_why_it_cannot_be_configured(robot, kind, wrong, reason, mended):
    node = robot.add(kind, **wrong)
    assert node.trigger_configure() == FAILURE
    assert reason in node.failure
    assert node.phase == "unconfigured"
    assert our_threads() == []
    status = robot.diagnosis(f"/{node.kind}: node", lambda status: level(status) == 2)
    assert status.message == node.failure
    if mended:
        assert robot.set_parameters(node, **mended).successful
        assert node.trigger_configure() == SUCCESS, node.failure
        robot.diagnosis(f"/{node.kind}: node", lambda status: level(status) == 0)


@pytest.mark.parametrize("kind, parameter", [(MicNode, "device"), (SpeakerNode, "device")])
def test_a_sound_device_that_is_not_there_is_named(robot, kind, parameter):
    source = {"source": "device"} if kind is MicNode else {"sink": "device"}
    node = robot.add(kind, **source, **{parameter: "a device of another robot"})
    assert node.trigger_configure() == FAILURE
    # Where PortAudio itself is missing, that is what is wrong.
    assert "a device of another robot" in node.failure or "libportaudio2" in node.failure


@pytest.mark.parametrize("kind, parameter", [(MicNode, "device"), (SpeakerNode, "device")])
def test_the_index_of_a_sound_device_is_a_number_in_yaml(robot, kind, parameter):
    source = {"source": "device"} if kind is MicNode else {"sink": "device"}
    node = robot.add(kind, **source, **{parameter: 77})
    assert node.value(parameter) == "77"
    assert node.trigger_configure() == FAILURE
    assert "77" in node.failure or "libportaudio2" in node.failure


def test_the_rate_of_diagnostics_is_that_of_the_configuration(robot):
    node = robot.add(MicNode, source="silence", diagnostics_hz=0.1)
    assert robot.set_parameters(node, diagnostics_hz=10.0).successful
    assert node.trigger_configure() == SUCCESS, node.failure
    for _ in range(3):  # at 0.1 Hz the first would come after ten seconds
        robot.diagnosis("/mic: node")


def test_a_damaged_calibration_is_named_with_its_file(robot, tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text("image_width: 640\nimage_height: 480\ncamera_matrix: {data: [1, 2]}\n")
    node = robot.add(CameraNode, camera_info=str(path))
    assert node.trigger_configure() == FAILURE
    assert str(path) in node.failure
    assert "camera_matrix" in node.failure


def test_a_video_that_is_none_is_named(robot, tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"this is no video")
    node = robot.add(CameraNode, source=f"file:{path}")
    assert node.trigger_configure() == FAILURE
    assert str(path) in node.failure


def test_an_unknown_parameter_is_refused_with_the_name_that_was_meant(robot):
    node = robot.add(OmniNode, barge_in_mss=100)
    assert node.trigger_configure() == FAILURE
    assert "unknown parameter 'barge_in_mss' (did you mean 'barge_in_ms'?)" in node.failure
    # Mending the one that was meant does not make the unknown one known.
    assert robot.set_parameters(node, barge_in_ms=100).successful
    assert node.trigger_configure() == FAILURE


def test_several_mistakes_are_named_together(robot):
    node = robot.add(MicNode, chunk_ms=5, loop="yes", colour="red")
    assert node.trigger_configure() == FAILURE
    for part in ("'chunk_ms': 5 is out of range", "'loop': 'yes' is of type str", "'colour'"):
        assert part in node.failure


def test_a_brain_that_does_not_open_fails_the_configuration_and_leaves_no_thread(
    robot, monkeypatch
):
    class Unwell(build.ReflexBrain):
        def open(self, setup):
            raise BrainError("the checkpoint is damaged")

    monkeypatch.setattr(build, "ReflexBrain", Unwell)
    node = robot.add(OmniNode)
    assert node.trigger_configure() == FAILURE
    assert node.failure == "the checkpoint is damaged"
    assert our_threads() == []
    monkeypatch.undo()
    assert node.trigger_configure() == SUCCESS


def test_a_missing_package_is_named_with_its_remedy(robot, monkeypatch):
    monkeypatch.setitem(sys.modules, "livekit", None)
    node = robot.add(MicNode, echo_cancellation="on")
    assert node.trigger_configure() == FAILURE
    assert "pip install livekit" in node.failure
    assert robot.set_parameters(node, echo_cancellation="off").successful
    assert node.trigger_configure() == SUCCESS, node.failure


def test_the_others_go_on_without_the_one_that_failed(robot):
    camera = robot.add(CameraNode, source="v4l2:/dev/video77")
    assert camera.trigger_configure() == FAILURE
    robot.run(MicNode)
    omni = robot.run(OmniNode)
    decisions = robot.hear(topics.DECISION)
    robot.until(lambda: omni.readers(topics.DECISION) == 1, "the listener")
    robot.until(lambda: decisions, "a decision")
    assert decisions[0].audio_filled_ms < 1000.0


def test_an_error_of_the_code_itself_is_a_failure_with_its_name_not_a_crash(robot, monkeypatch):
    monkeypatch.setattr("minicpmo_ros.nodes.camera.make_camera", lambda *args: 1 / 0)
    node = robot.add(CameraNode)
    assert node.trigger_configure() == FAILURE
    assert node.failure == "ZeroDivisionError: division by zero"
    monkeypatch.undo()
    assert node.trigger_configure() == SUCCESS

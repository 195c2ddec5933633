"""What the nodes say about themselves on /diagnostics."""

from __future__ import annotations

import itertools
import threading

import pytest

from minicpmo_ros import topics
from minicpmo_ros.brains import build
from minicpmo_ros.nodes.camera import CameraNode
from minicpmo_ros.nodes.diagnostics import Sequence
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.ros_types import message_class
from minicpmo_ros.nodes.speaker import SpeakerNode
from minicpmo_ros.wire import stamp_ns
from tests.nodes.robot import CHUNK_NS, level, tone, values

OK, WARN, ERROR = 0, 1, 2


def number(status, key: str) -> float:
    return float(values(status)[key])


def test_every_node_reports_once_a_second_by_default(robot):
    times: dict[str, list[int]] = {}
    kind = message_class("diagnostic_msgs/msg/DiagnosticArray")

    def note(array) -> None:
        times.setdefault(array.status[0].hardware_id, []).append(stamp_ns(array.header.stamp))

    robot.friend.create_subscription(kind, "/diagnostics", note, 100)
    nodes = [robot.add(k, diagnostics_hz=1.0) for k in (CameraNode, MicNode, OmniNode, SpeakerNode)]
    names = {node.get_fully_qualified_name() for node in nodes}
    robot.until(lambda: set(times) == names and min(map(len, times.values())) >= 3, "three each")
    for stamps in times.values():
        gaps_s = [(b - a) / 1e9 for a, b in itertools.pairwise(stamps)]
        assert sum(gaps_s) / len(gaps_s) == pytest.approx(1.0, rel=0.5)


def test_the_diagnosis_of_a_living_stack_holds_rates_latencies_drops_gaps_and_queues(robot):
    camera, mic = robot.run(CameraNode), robot.run(MicNode)
    omni, speaker = robot.run(OmniNode), robot.run(SpeakerNode)
    robot.until(lambda: omni.readers(topics.SPEECH), "the speaker")
    robot.until(lambda: omni.traffic.sent[topics.DECISION.name] >= 1, "a decision")
    omni.session.say("hello", omni.now_ns())
    spoken = "planned to first sample p50 ms"
    robot.diagnosis("/omni: latency", lambda s: spoken in values(s))

    rates = robot.diagnosis("/omni: node", lambda s: number(s, "in audio/mic Hz") > 0)
    assert level(rates) == OK
    assert {"in image_raw Hz", "in playback Hz", "out decision Hz", "out state Hz"} <= set(
        values(rates)
    )
    sent = robot.diagnosis("/camera: node", lambda s: number(s, "out image_raw Hz") > 0)
    assert values(sent)["out image_raw/compressed Hz"] == "0.0"

    latency = values(robot.diagnosis("/omni: latency"))
    for hop in (
        "capture to omni, sound",
        "capture to omni, picture",
        "unit end to decision without brain",
        "brain",
        "planned to first sample",
    ):
        assert float(latency[f"{hop} p99 ms"]) >= float(latency[f"{hop} p50 ms"])
    for name in ("camera", "mic"):
        assert "capture to published p99 ms" in values(robot.diagnosis(f"/{name}: device"))
    device = values(robot.diagnosis("/speaker: device"))
    assert {"planned to queued p50 ms", "queued samples", "chunks missing"} <= set(device)

    timeline = values(robot.diagnosis("/omni: timeline"))
    assert {"chunks of sound lost on the way", "gaps", "late_ms", "pictures_dropped"} <= set(
        timeline
    )
    assert float(timeline["units"]) >= 1
    brain = values(robot.diagnosis("/omni: brain"))
    assert (brain["brain"], brain["epoch"], brain["failures"]) == ("reflex", "0", "0")
    assert brain["state"] in ("LISTENING", "SPEAKING")
    assert int(brain["queue depth"]) >= 0
    assert level(robot.diagnosis("/omni: voice")) == OK
    assert {"mode", "late_ms"} <= set(values(robot.diagnosis("/mic: echo")))
    assert camera.active
    assert mic.active
    assert speaker.active


def test_a_silent_microphone_and_camera_are_a_warning_until_they_are_back(simulation):
    omni = simulation.run(OmniNode)
    simulation.tick(simulation.now_ns)
    simulation.live(3.0)
    lost = simulation.diagnosis("/omni: timeline", lambda s: level(s) == WARN)
    assert "no sound for 3.0 s" in lost.message
    assert "no picture for 3.0 s" in lost.message
    simulation.live(1.2, sound=lambda at_ns: tone(0.1), omni=omni)
    back = simulation.diagnosis("/omni: timeline", lambda s: "sound" not in s.message)
    assert "no picture" in back.message


def test_chunks_lost_on_the_way_are_counted(simulation):
    omni = simulation.run(OmniNode)
    mic = simulation.talk(topics.MIC)
    simulation.until(mic.get_subscription_count, "the omni node")
    simulation.tick(simulation.now_ns)
    for place in range(20):
        simulation.tick(simulation.now_ns + CHUNK_NS)
        message = simulation.chunk(simulation.now_ns - CHUNK_NS, tone(0.1), sequence=place)
        if place not in (5, 6, 11):
            before = omni.traffic.received[topics.MIC.name]
            mic.publish(message)
            simulation.until(lambda b=before: omni.traffic.received[topics.MIC.name] > b, "it")
    status = simulation.diagnosis("/omni: timeline", lambda s: number(s, "units") >= 1)
    assert number(status, "chunks of sound lost on the way") == 3
    troubles = simulation.diagnosis("/omni: troubles", lambda s: level(s) == WARN)
    assert "without sound, filled with silence" in troubles.message


def test_a_publisher_that_begins_anew_has_lost_nothing():
    sequence = Sequence()
    for value in (7, 8, 9, 0, 1, 2, 2, 2):
        sequence.add(value)
    assert sequence.lost == 0
    sequence.add(5)
    assert sequence.lost == 2


def test_a_brain_that_does_not_keep_up_is_a_warning_and_units_are_skipped(simulation, monkeypatch):
    go_on = threading.Event()

    class Slow(build.ReflexBrain):
        def unit(self, unit, around):
            go_on.wait(30)
            return super().unit(unit, around)

    monkeypatch.setattr(build, "ReflexBrain", Slow)
    omni = simulation.run(OmniNode, brain_backlog=2)
    simulation.tick(simulation.now_ns)
    wait, simulation.nodes = simulation.nodes, []  # do not wait for this brain to have thought
    for _ in range(7):
        simulation.now_ns += 1_000_000_000
        simulation.tick(simulation.now_ns)
        simulation.until(lambda: omni.now_ns() == simulation.now_ns, "the time")
    simulation.nodes = wait
    status = simulation.diagnosis("/omni: brain", lambda s: level(s) == WARN)
    assert status.message == "2 units wait for the brain"
    assert number(status, "units skipped") >= 1
    assert omni.troubles.counts()["brain"] >= 1
    go_on.set()
    simulation.until(lambda: not omni.session.backlog, "the brain")
    simulation.diagnosis("/omni: brain", lambda s: level(s) == OK)


def test_a_robot_that_nobody_can_hear_is_a_warning(robot, monkeypatch):
    robot.run(OmniNode)
    status = robot.diagnosis("/omni: voice", lambda s: level(s) == WARN)
    assert status.message == "nobody listens to the robot's speech"
    robot.run(SpeakerNode)
    robot.diagnosis("/omni: voice", lambda s: level(s) == OK)


def test_a_robot_without_a_voice_says_so_for_as_long_as_it_has_none(robot, monkeypatch):
    from minicpmo_ros.errors import DeviceError

    def missing(**options):
        raise DeviceError("no espeak-ng")

    monkeypatch.setattr(build, "Synthesiser", missing)
    robot.run(OmniNode)
    robot.run(SpeakerNode)
    status = robot.diagnosis("/omni: voice", lambda s: level(s) == WARN)
    assert "install espeak-ng" in status.message


def test_the_end_of_a_recording_is_a_warning_of_the_device(robot, tmp_path):
    import soundfile

    path = tmp_path / "short.wav"
    soundfile.write(path, tone(0.25), 16000)
    robot.run(MicNode, source=f"file:{path}")
    robot.diagnosis("/mic: device", lambda s: values(s)["state"] == "ended")


def test_a_device_that_fails_while_it_is_read_is_a_trouble_and_comes_back(robot, monkeypatch):
    from minicpmo_ros.errors import DeviceError

    mic = robot.run(MicNode)
    read = mic._microphone.read
    fail = threading.Event()
    fail.set()

    def flaky(timeout_s):
        if fail.is_set():
            raise DeviceError("the microphone was unplugged")
        return read(timeout_s)

    mic.trigger_deactivate()
    monkeypatch.setattr(mic._microphone, "read", flaky)
    mic.trigger_activate()
    trouble = robot.diagnosis("/mic: troubles", lambda s: level(s) == WARN)
    assert "microphone: the microphone was unplugged" in trouble.message
    chunks = robot.hear(topics.MIC)
    fail.clear()
    robot.until(lambda: chunks, "sound again")


def test_a_diagnosis_that_fails_is_itself_diagnosed(robot, monkeypatch):
    omni = robot.run(OmniNode)
    monkeypatch.setattr(omni, "readers", lambda topic: 1 / 0)
    status = robot.diagnosis("/omni: diagnostics", lambda s: level(s) == ERROR)
    assert status.message == "ZeroDivisionError: division by zero"


def test_the_last_word_of_a_node_is_that_it_is_finalized(robot):
    mic = robot.run(MicNode)
    robot.diagnosis("/mic: node")
    mic.trigger_shutdown()
    robot.diagnosis("/mic: node", lambda s: s.message == "finalized")

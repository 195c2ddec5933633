"""The nodes go through their lifecycle, as often as one likes, and leave nothing behind."""

from __future__ import annotations

import contextlib

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState

from minicpmo_ros import topics
from minicpmo_ros.nodes.base import FAILURE, SUCCESS
from minicpmo_ros.nodes.camera import CameraNode
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.speaker import SpeakerNode
from tests.nodes.robot import our_threads

KINDS = [CameraNode, MicNode, OmniNode, SpeakerNode]
each_node = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def held(node) -> dict[str, list[str]]:
    """What a node holds of ROS beside what every node has."""
    own = "/".join((node.get_namespace().rstrip("/"), node.get_name()))
    return {
        "topics": sorted(s.topic_name for s in node.subscriptions),
        "publishers": sorted(p.topic_name for p in node.publishers),
        "services": sorted(s.srv_name for s in node.services if not s.srv_name.startswith(own)),
        "timers": ["timer" for _ in node.timers],
        "actions": ["action" for w in node.waitables if type(w).__name__ == "ActionServer"],
    }


@each_node
def test_a_node_lives_twice_and_gives_back_what_it_took(robot, kind):
    node = robot.add(kind)
    before = held(node)
    for _ in range(2):
        assert node.trigger_configure() == SUCCESS, node.failure
        assert node.phase == "inactive"
        for _ in range(2):
            assert node.trigger_activate() == SUCCESS, node.failure
            assert node.active
            assert node.trigger_deactivate() == SUCCESS
            assert node.phase == "inactive"
        assert node.trigger_cleanup() == SUCCESS
        assert node.phase == "unconfigured"
        assert held(node) == before
        assert our_threads() == []


@each_node
@pytest.mark.parametrize("phase", ["unconfigured", "inactive", "active"])
def test_shutdown_from_any_state_ends_threads_timers_and_subscriptions(robot, kind, phase):
    node = robot.add(kind)
    before = held(node)
    if phase != "unconfigured":
        assert node.trigger_configure() == SUCCESS, node.failure
    if phase == "active":
        assert node.trigger_activate() == SUCCESS, node.failure
    assert node.trigger_shutdown() == SUCCESS
    assert node.phase == "finalized"
    assert our_threads() == []
    assert held(node) == {**before, "timers": []}


def test_all_four_live_in_one_process(robot):
    nodes = [robot.add(kind) for kind in KINDS]
    for step in ("configure", "activate", "deactivate", "cleanup") * 2:
        for node in nodes:
            assert getattr(node, f"trigger_{step}")() == SUCCESS, node.failure
    assert our_threads() == []


def test_transitions_come_from_outside_and_the_state_can_be_asked_for(robot):
    node = robot.add(MicNode)
    for transition, state in (
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_CLEANUP, "unconfigured"),
        (Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, "finalized"),
    ):
        answer = robot.call(ChangeState, "/mic/change_state", transition=Transition(id=transition))
        assert answer.success
        assert robot.call(GetState, "/mic/get_state").current_state.label == state == node.phase


def test_a_transition_that_does_not_exist_is_refused_and_changes_nothing(robot):
    node = robot.add(MicNode)
    wrong = Transition(id=Transition.TRANSITION_ACTIVATE)
    # rclpy before Kilted raises instead of answering; run_nodes lives on.
    with contextlib.suppress(RuntimeError):
        assert not robot.call(ChangeState, "/mic/change_state", transition=wrong).success
    assert node.phase == "unconfigured"
    assert node.trigger_configure() == SUCCESS


def test_a_node_that_fails_to_activate_undoes_what_it_began_and_can_try_again(robot, monkeypatch):
    node = robot.add(OmniNode)
    assert node.trigger_configure() == SUCCESS
    before = held(node)
    listen = node.listen

    def broken(topic, callback):
        if topic is topics.PLAYBACK:
            raise OSError("no more file descriptors")
        return listen(topic, callback)

    monkeypatch.setattr(node, "listen", broken)
    assert node.trigger_activate() == FAILURE
    assert node.phase == "inactive"
    assert node.failure == "OSError: no more file descriptors"
    assert {**held(node), "topics": []} == {**before, "topics": []}
    monkeypatch.setattr(node, "listen", listen)
    assert node.trigger_activate() == SUCCESS
    assert node.failure == ""


def test_a_transition_that_raises_ends_in_unconfigured_with_nothing_left(robot, monkeypatch):
    """rclpy turns an exception into the error state; ours comes back from it."""
    node = robot.run(CameraNode)
    assert our_threads() == ["camera"]
    monkeypatch.setattr(
        type(node).__mro__[2], "on_deactivate", lambda *args: 1 / 0
    )  # of rclpy itself
    node.trigger_deactivate()
    monkeypatch.undo()
    assert node.phase == "unconfigured"
    assert our_threads() == []
    assert node.trigger_configure() == SUCCESS


def test_deactivation_stops_sound_at_once(robot):
    omni, speaker = robot.run(OmniNode), robot.run(SpeakerNode)
    reports = robot.hear(topics.PLAYBACK)
    robot.until(lambda: speaker.readers(topics.PLAYBACK) == 2, "the listeners")
    robot.until(lambda: omni.readers(topics.SPEECH) == 1, "the speaker")
    omni.session.say("one two three four five six seven eight nine ten", omni.now_ns())
    robot.until(lambda: speaker.queue.sounding, "the first word")
    speaker.trigger_deactivate()
    assert speaker.queue.queued_samples == 0
    robot.until(lambda: reports and reports[-1].event == reports[-1].INTERRUPTED, "the report")
    assert reports[-1].heard != "one two three four five six seven eight nine ten"


def test_speech_is_heard_again_after_the_speaker_was_off(robot):
    omni, speaker = robot.run(OmniNode), robot.run(SpeakerNode)
    reports = robot.hear(topics.PLAYBACK)
    for _ in range(2):
        robot.until(lambda: omni.readers(topics.SPEECH) == 1, "the speaker")
        robot.until(lambda: speaker.readers(topics.PLAYBACK) == 2, "the listeners")
        reports.clear()
        omni.session.say("hello", omni.now_ns())
        robot.until(lambda: [r for r in reports if r.event == r.FINISHED], "hello to be heard")
        assert reports[-1].heard == "hello"
        assert speaker.trigger_deactivate() == SUCCESS
        robot.until(lambda: omni.readers(topics.SPEECH) == 0, "the speaker to be gone")
        assert speaker.trigger_activate() == SUCCESS

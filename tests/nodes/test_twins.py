"""Two nodes of one name would speak with two voices: the second is refused."""

from __future__ import annotations

from minicpmo_ros.nodes.base import FAILURE, SUCCESS
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.run import start_later
from tests.nodes.robot import level

MESSAGE = "a node named /mic runs already: stop it, or start this one in another namespace"


def test_a_second_node_of_the_same_name_is_refused_with_what_to_do(robot):
    first, second = robot.run(MicNode), robot.add(MicNode)
    assert second.trigger_configure() == FAILURE
    assert second.failure == MESSAGE
    assert second.met_twin
    assert first.active


def test_a_twin_that_starts_later_is_an_error_of_the_first(robot):
    robot.run(MicNode)
    assert level(robot.diagnosis("/mic: node")) == 0
    second = robot.add(MicNode, diagnostics_hz=0.1)
    status = robot.diagnosis("/mic: node", lambda s: level(s) == 2)
    assert status.message == "another node named /mic runs, too: stop one of them"
    robot.remove(second)
    robot.diagnosis("/mic: node", lambda s: level(s) == 0)


def test_once_the_first_is_gone_the_second_can_be_configured(robot):
    first, second = robot.run(MicNode), robot.add(MicNode)
    assert second.trigger_configure() == FAILURE
    robot.remove(first)
    robot.until(lambda: second.trigger_configure() == SUCCESS, "the first to be gone")


def test_a_node_started_again_outwaits_the_ghost_of_the_one_that_died(robot, monkeypatch):
    """Discovery forgets a killed process after its lease alone; respawn takes two seconds."""
    monkeypatch.setattr("minicpmo_ros.nodes.run.RETRY_S", 0.2)
    ghost, again = robot.run(OmniNode), robot.add(OmniNode)
    start_later(again)
    robot.until(lambda: again.met_twin, "it to meet the ghost")
    robot.remove(ghost)
    robot.until(lambda: again.active, "it to start")


def test_a_node_with_a_living_twin_gives_up(robot, monkeypatch):
    monkeypatch.setattr("minicpmo_ros.nodes.run.RETRY_S", 0.05)
    monkeypatch.setattr("minicpmo_ros.nodes.run.GHOST_S", 0.5)
    first, second = robot.run(MicNode), robot.add(MicNode)
    timers = len(list(second.timers))
    start_later(second)
    robot.until(lambda: second.met_twin, "it to meet its twin")
    robot.until(lambda: len(list(second.timers)) == timers, "it to give up")
    robot.remove(first)
    assert second.phase == "unconfigured"


def test_a_node_that_fails_for_another_reason_is_not_tried_again(robot):
    node = robot.add(MicNode, source="file:/nowhere.wav")
    timers = len(list(node.timers))
    start_later(node)
    robot.until(lambda: node.failure, "the failure")
    assert len(list(node.timers)) == timers


def test_a_node_told_not_to_start_by_itself_waits(robot):
    node = robot.add(MicNode, autostart=False)
    timers = len(list(node.timers))
    start_later(node)
    assert len(list(node.timers)) == timers

"""A brain that takes long to load, loads again, or has a reserve at work: what the node says."""

from __future__ import annotations

import threading

import pytest
from std_srvs.srv import Trigger

from minicpmo_ros import topics
from minicpmo_ros.brains import build
from minicpmo_ros.errors import BrainError
from minicpmo_ros.nodes.base import FAILURE, SUCCESS
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.ros_types import message_class
from minicpmo_ros.srv import Interrupt
from tests.nodes.robot import level, our_threads, tone, values

PATIENCE_S = 20.0
OK, WARN, ERROR = 0, 1, 2


class Gate:
    """Where a loading brain waits until the node has been diagnosed once more."""

    def __init__(self) -> None:
        self._passes = threading.Semaphore(0)

    def diagnosed(self) -> None:
        self._passes.release()

    def wait(self) -> None:
        while self._passes.acquire(blocking=False):  # those of before do not count
            pass
        for _ in range(2):  # one may have begun too early to see what was told last
            assert self._passes.acquire(timeout=PATIENCE_S)


@pytest.fixture
def loading(robot, monkeypatch):
    """A node whose brain tells of shares of its loading; what /diagnostics said of the brain."""
    gate, said = Gate(), []

    class Slow(build.ReflexBrain):
        shares = (0.0, 0.2, 0.25, 0.4)
        failure: Exception | None = None

        def open(self, setup):
            for share in self.shares:
                self.progress("vision", share)
                gate.wait()
            if self.failure is not None:
                raise self.failure
            super().open(setup)

    monkeypatch.setattr(build, "ReflexBrain", Slow)
    node = robot.add(OmniNode)
    diagnose = node.diagnose
    monkeypatch.setattr(node, "diagnose", lambda: (diagnose(), gate.diagnosed()))

    def note(array) -> None:
        said.extend((s.message, level(s)) for s in array.status if s.name == "/omni: brain")

    kind = message_class("diagnostic_msgs/msg/DiagnosticArray")
    robot.friend.create_subscription(kind, "/diagnostics", note, 100)
    robot.diagnosis("/omni: node")
    return node, Slow, said


def test_a_process_that_is_told_to_stop_does_not_wait_for_its_brain(robot, monkeypatch):
    go_on = threading.Event()

    class Slow(build.ReflexBrain):
        def open(self, setup):
            assert go_on.wait(PATIENCE_S)

    def stop_asked() -> bool:
        go_on.set()  # for nobody has to wait for the thread either
        return True

    monkeypatch.setattr(build, "ReflexBrain", Slow)
    node = robot.add(OmniNode, diagnostics_hz=10.0)
    node.stop_asked = stop_asked
    assert node.trigger_configure() == FAILURE
    assert "told to stop while the brain was being opened" in node.failure
    assert our_threads() == []


def test_diagnostics_and_log_say_how_far_a_brain_is_while_the_node_is_configured(
    robot, loading, capfd
):
    node, _, said = loading
    assert node.trigger_configure() == SUCCESS, node.failure
    steps = [f"loading reflex: vision {percent} %" for percent in (0, 20, 25, 40)]
    robot.until(lambda: (steps[-1], OK) in said, "what was said meanwhile")
    assert list(dict.fromkeys(said)) == [(step, OK) for step in steps]
    log = capfd.readouterr().err
    assert [log.count(step) for step in steps] == [0, 1, 0, 1]
    node.trigger_activate()
    robot.diagnosis("/omni: brain", lambda s: s.message == "ok")


def test_a_brain_that_fails_half_way_through_its_loading_fails_the_configuration(robot, loading):
    node, brain, _ = loading
    brain.failure = BrainError("the checkpoint ends at 40 %")
    assert node.trigger_configure() == FAILURE
    assert node.failure == "the checkpoint ends at 40 %"
    assert our_threads() == []
    robot.diagnosis("/omni: node", lambda s: level(s) == ERROR and s.message == node.failure)
    brain.failure = None
    assert node.trigger_configure() == SUCCESS, node.failure


def test_a_brain_that_loads_again_for_a_reset_leaves_the_node_responsive(robot, monkeypatch):
    go_on, opened = threading.Event(), []

    class Slow(build.ReflexBrain):
        def open(self, setup):
            opened.append(setup)
            if len(opened) > 1:
                self.progress("vision", 0.4)
                assert go_on.wait(PATIENCE_S)
            super().open(setup)

    monkeypatch.setattr(build, "ReflexBrain", Slow)
    node = robot.run(OmniNode)
    try:
        assert robot.call(Trigger, "reset").success
        robot.diagnosis("/omni: brain", lambda s: s.message == "loading reflex: vision 40 %")
        assert robot.call(Interrupt, "interrupt").message == "nothing to stop"
    finally:
        go_on.set()
    robot.diagnosis("/omni: brain", lambda s: s.message == "ok")
    assert len(opened) == 2
    assert node.active


def test_a_reserve_at_work_is_a_warning_with_its_reason_until_the_brain_is_back(
    simulation, monkeypatch
):
    why = "local failed 3 times (NumericsError: NaN): reflex decides instead"

    class Troubled(build.ReflexBrain):
        wrong = why

        def unit(self, unit, around):
            self.trouble = self.wrong
            return super().unit(unit, around)

    monkeypatch.setattr(build, "ReflexBrain", Troubled)
    omni = simulation.run(OmniNode)
    states = simulation.hear(topics.STATE)
    simulation.tick(simulation.now_ns)
    simulation.live(1.2, sound=lambda at_ns: tone(0.1), omni=omni)
    status = simulation.diagnosis("/omni: brain", lambda s: level(s) == WARN)
    assert status.message == why
    assert values(status)["failures"] == "0"
    simulation.until(lambda: states and states[-1].detail == why, "the state")
    monkeypatch.setattr(Troubled, "wrong", "")
    simulation.live(1.0, sound=lambda at_ns: tone(0.1), omni=omni)
    simulation.diagnosis("/omni: brain", lambda s: level(s) == OK)

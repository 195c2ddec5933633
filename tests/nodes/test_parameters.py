"""Parameters come from one table: declared, described, checked, and refused at the wrong time."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from rcl_interfaces.srv import DescribeParameters

from minicpmo_ros import topics
from minicpmo_ros.brains.build import OmniSettings
from minicpmo_ros.messages import NS_PER_MS
from minicpmo_ros.nodes import parameters
from minicpmo_ros.nodes.base import FAILURE, SUCCESS
from minicpmo_ros.nodes.camera import CameraNode
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.speaker import SpeakerNode
from tests.nodes.robot import Robot

KINDS = {"camera": CameraNode, "mic": MicNode, "omni": OmniNode, "speaker": SpeakerNode}
CONFIG = Path(__file__).parents[2] / "config" / "omni.yaml"


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_of_the_table_is_declared_with_description_default_and_range(robot, name):
    node = robot.add(KINDS[name], devices=True, diagnostics_hz=1.0)
    table = parameters.TABLE[name]
    names = [p.name for p in table]
    answer = robot.call(DescribeParameters, f"/{name}/describe_parameters", names=names)
    for p, about in zip(table, answer.descriptors, strict=True):
        assert node.value(p.name) == p.default
        assert p.description in about.description
        assert p.unit in about.description
        assert ("any time" if p.live else "unconfigured") in about.additional_constraints
        for choice in p.choices:
            assert choice in about.additional_constraints
        ranges = [*about.integer_range, *about.floating_point_range]
        assert [(r.from_value, r.to_value) for r in ranges] == (
            [] if p.low is None else [(p.low, p.high)]
        )


def test_the_settings_of_the_session_have_the_defaults_of_the_table():
    table = {p.name: p.default for p in parameters.TABLE["omni"]}
    for field in fields(OmniSettings):
        assert table[field.name] == field.default, field.name


def test_barge_in_may_change_while_the_robot_lives(robot):
    node = robot.run(OmniNode, barge_in_ms=200)
    assert node.session.barge_in is not None
    assert robot.set_parameters(node, barge_in_ms=0).successful
    assert node.session.barge_in is None
    assert robot.set_parameters(node, barge_in_ms=300).successful
    assert node.session.barge_in.stops(0, 300 * NS_PER_MS, 0)
    assert not node.session.barge_in.stops(0, 299 * NS_PER_MS, 0)
    assert robot.set_parameters(node, barge_in_ms=-1).successful
    assert node.session.barge_in.stops(0, 200 * NS_PER_MS, 0)
    assert robot.set_parameters(node, barge_in_ms=300).successful
    refused = robot.set_parameters(node, barge_in_ms=5001)
    assert not refused.successful
    assert "5000" in refused.reason
    assert node.value("barge_in_ms") == 300


@pytest.mark.parametrize("phase", ["inactive", "active"])
def test_what_cannot_change_live_is_refused_with_what_to_do(robot, phase):
    node = robot.add(CameraNode)
    assert node.trigger_configure() == SUCCESS
    if phase == "active":
        assert node.trigger_activate() == SUCCESS
    refused = robot.set_parameters(node, width=320)
    assert not refused.successful
    assert f"'width' cannot change while the node is {phase}" in refused.reason
    assert "clean up the node first" in refused.reason
    assert node.value("width") == 64
    clock = robot.set_parameters(node, use_sim_time=True)
    assert not clock.successful
    assert "use_sim_time" in clock.reason


def test_a_node_that_was_cleaned_up_takes_the_change_and_uses_it(robot):
    node = robot.run(CameraNode)
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert robot.set_parameters(node, width=128, height=96).successful
    assert node.trigger_configure() == SUCCESS
    pictures = robot.hear(topics.IMAGE)
    assert node.trigger_activate() == SUCCESS
    robot.until(lambda: pictures, "a picture")
    assert (pictures[0].width, pictures[0].height) == (128, 96)


def test_parameters_set_together_change_together_or_not_at_all(robot):
    from rcl_interfaces.srv import SetParametersAtomically
    from rclpy.parameter import Parameter

    node = robot.run(OmniNode, barge_in_ms=200)
    before = node.session.barge_in
    wanted = [Parameter("barge_in_ms", value=0), Parameter("late_ms", value=10)]
    answer = robot.call(
        SetParametersAtomically,
        "/omni/set_parameters_atomically",
        parameters=[p.to_parameter_msg() for p in wanted],
    )
    assert not answer.result.successful
    assert node.session.barge_in is before
    assert node.value("barge_in_ms") == 200


@pytest.mark.parametrize(
    "name, value",
    [("late_ms", "soon"), ("late_ms", 99999), ("brain", "genius"), ("publish_timings", 3)],
)
def test_a_wrong_value_is_refused_in_any_state(robot, name, value):
    node = robot.add(OmniNode)
    before = node.value(name)
    refused = robot.set_parameters(node, **{name: value})
    assert not refused.successful
    assert refused.reason
    assert node.value(name) == before
    assert node.trigger_configure() == SUCCESS


def test_a_parameter_that_is_not_declared_cannot_be_set(robot):
    refused = robot.set_parameters(robot.add(OmniNode), colour="red")
    assert not refused.successful


def with_file(path: Path) -> Robot:
    return Robot(["--ros-args", "--params-file", str(path)])


def test_the_configuration_that_ships_is_understood_by_every_node():
    with with_file(CONFIG) as robot:
        for kind in KINDS.values():
            node = robot.add(kind)
            assert node.trigger_configure() == SUCCESS, node.failure


def test_a_file_speaks_to_the_nodes_of_every_namespace(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text("/**/mic:\n  ros__parameters:\n    chunk_ms: 50\n")
    with with_file(path) as robot:
        assert robot.add(MicNode).value("chunk_ms") == 50
        assert robot.add(MicNode, "/left/arm").value("chunk_ms") == 50


def test_a_whole_number_in_a_file_is_taken_where_a_float_is_wanted(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text("/**/camera:\n  ros__parameters:\n    rate_hz: 5\n")
    with with_file(path) as robot:
        node = robot.add(CameraNode)
        assert node.trigger_configure() == SUCCESS, node.failure
        assert node.value("rate_hz") == 5.0


@pytest.mark.parametrize("word", ["off", "on"])
def test_on_and_off_need_no_quotes_though_yaml_takes_them_for_true_and_false(tmp_path, word):
    path = tmp_path / "robot.yaml"
    path.write_text(f"/**/mic:\n  ros__parameters:\n    echo_cancellation: {word}\n")
    with with_file(path) as robot:
        node = robot.add(MicNode, devices=True)
        assert node.value("echo_cancellation") == word


@pytest.mark.parametrize(
    "line, reason",
    [
        ("chunk_mss: 50", "unknown parameter 'chunk_mss' (did you mean 'chunk_ms'?)"),
        ("chunk_ms: fast", "'chunk_ms': 'fast' is of type str"),
        ("chunk_ms: 5", "'chunk_ms': 5 is out of range; 10 to 1000 ms"),
        ("autostart: maybe", "'autostart': 'maybe' is of type str"),
    ],
)
def test_a_mistake_in_a_file_keeps_that_node_from_starting_and_no_other(tmp_path, line, reason):
    path = tmp_path / "robot.yaml"
    path.write_text(f"/**/mic:\n  ros__parameters:\n    {line}\n")
    with with_file(path) as robot:
        mic, omni = robot.add(MicNode), robot.add(OmniNode)
        assert mic.trigger_configure() == FAILURE
        assert reason in mic.failure
        assert omni.trigger_configure() == SUCCESS

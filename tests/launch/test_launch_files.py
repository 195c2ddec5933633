"""What the launch files say fits the package: read as text, so that it needs no ROS."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from minicpmo_ros.nodes import parameters

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "launch").glob("*.launch.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
OMNI = ROOT / "launch" / "omni.launch.py"


def constant(path: Path, name: str):
    """A constant of a launch file."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == name:
            return ast.literal_eval(statement.value)
    raise AssertionError(f"{path.name} has no {name}")


def calls(path: Path, *names: str) -> list[str]:
    """First arguments of the calls of these names, where they are written out."""
    return [
        node.args[0].value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in names
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]


def programs() -> set[str]:
    """The executables that CMake installs."""
    listed = re.search(
        r"foreach\(program IN ITEMS ([\w ]+)\)", (ROOT / "CMakeLists.txt").read_text()
    )
    assert listed is not None
    return set(listed.group(1).split())


def test_there_is_a_launch_file_for_the_robot_and_one_for_a_recording():
    assert [path.name for path in FILES] == ["omni.launch.py", "replay.launch.py"]


@each_file
def test_every_argument_is_described_and_used_and_every_one_used_is_declared(path):
    arguments = constant(path, "ARGUMENTS")
    names = [name for name, _, _ in arguments]
    assert len(set(names)) == len(names)
    assert all(len(text) > 10 for _, _, text in arguments)
    assert set(calls(path, "LaunchConfiguration", "flag")) == set(names)


@each_file
def test_its_first_line_shows_how_it_is_called(path):
    assert f"ros2 launch minicpmo_ros {path.name}" in ast.get_docstring(ast.parse(path.read_text()))


def test_the_executables_are_those_that_are_installed():
    started = {constant(OMNI, "TOGETHER"), *constant(OMNI, "NODES")}
    started.update(calls(ROOT / "launch" / "replay.launch.py", "ExecutableInPackage"))
    assert started == programs()


def test_the_nodes_are_those_of_the_parameter_table():
    assert set(constant(OMNI, "NODES")) == set(parameters.TABLE)


def test_the_parameters_that_a_launch_file_sets_exist_and_take_these_values():
    for node, values in constant(OMNI, "APART").items():
        table = {p.name: p for p in parameters.TABLE[node]}
        for name, value in values.items():
            assert table[name].check(value) == value
    for name in calls(OMNI, "flag"):
        assert name in parameters.BUILT_IN


def test_the_default_parameter_file_ships_with_the_package():
    defaults = {name: default for name, default, _ in constant(OMNI, "ARGUMENTS")}
    assert (ROOT / defaults["params_file"]).is_file()
    folders = re.search(
        r"install\(DIRECTORY ([\w ]+) DESTINATION share", (ROOT / "CMakeLists.txt").read_text()
    )
    assert folders is not None
    assert {"launch", "config"} <= set(folders.group(1).split())

"""Which Python and which ROS set-up takes, and what it says when it finds none."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from scripts.bootstrap import machine
from scripts.bootstrap.machine import Ros, SetupError, choose_ros, clean_environment, find_python

PYPI = Ros("kilted")
SOURCED = Ros("jazzy", ("/opt/ros/jazzy",))


def program(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def only(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Makes `paths` all the interpreters there are."""
    listed = iter([*map(str, paths), *[None] * 20])
    monkeypatch.setattr(machine.shutil, "which", lambda name: next(listed))


def test_a_sourced_ros_is_taken() -> None:
    ros = choose_ros({"AMENT_PREFIX_PATH": "/ws/install:/opt/ros/jazzy", "ROS_DISTRO": "jazzy"})
    assert ros == Ros("jazzy", ("/ws/install", "/opt/ros/jazzy"))
    assert ros.sourced


def test_without_one_ros_comes_from_pypi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert choose_ros({}) == Ros("kilted")
    assert choose_ros({"MINICPMO_ROS": "jazzy"}) == Ros("jazzy")


def test_a_distro_alone_does_not_count_as_sourced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert not choose_ros({"ROS_DISTRO": "humble"}).sourced


def test_arm_without_a_sourced_ros_is_told_to_source_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(SetupError, match=r"aarch64.*source it"):
        choose_ros({})


def test_children_do_not_inherit_a_foreign_ros() -> None:
    outer = {
        "HOME": "/root",
        "PYTHONPATH": "/opt/ros/x",
        "LD_LIBRARY_PATH": "/opt/ros/x/lib",
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
    }
    assert clean_environment(outer, PYPI) == {"HOME": "/root"}
    sourced = clean_environment(outer, SOURCED)
    assert sourced["PYTHONPATH"] == "/opt/ros/x"
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in sourced


def test_this_python_is_found() -> None:
    python = find_python(PYPI, {"PATH": "/usr/bin:/bin"})
    assert python.version == sys.version_info[:2]
    assert Path(python.path).is_absolute()


def test_an_unsuitable_python_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = program(tmp_path / "old", """echo '["/usr/bin/python3.8", 3, 8]'""")
    broken = program(tmp_path / "broken", "exit 1")
    good = program(tmp_path / "good", """echo '["/usr/bin/python3.12", 3, 12]'""")
    only(monkeypatch, old, broken, good)
    assert find_python(PYPI, {}).version == (3, 12)


def test_no_suitable_python_names_what_was_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only(monkeypatch, program(tmp_path / "old", """echo '["/usr/bin/python3.8", 3, 8]'"""))
    with pytest.raises(SetupError, match=r"3\.10 to 3\.13.*found: Python 3\.8"):
        find_python(PYPI, {})


def test_a_python_without_the_sourced_rclpy_is_no_candidate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = """echo '["/usr/bin/python3.12", 3, 12]'"""
    without = program(tmp_path / "a", f'case "$2" in *rclpy*) exit 1;; esac\n{answer}')
    with_it = program(tmp_path / "b", """echo '["/usr/bin/python3.13", 3, 13]'""")
    only(monkeypatch, without, with_it)
    assert find_python(SOURCED, {}).version == (3, 13)
    only(monkeypatch, without)
    with pytest.raises(SetupError, match="rclpy"):
        find_python(SOURCED, {})

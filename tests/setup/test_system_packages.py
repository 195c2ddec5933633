"""Packages of the system: what is missing, and what is said where apt may not be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.bootstrap import system_packages
from scripts.bootstrap.machine import Python, Ros, SetupError
from scripts.bootstrap.progress import Progress
from scripts.bootstrap.system_packages import Need, install, missing, needs

DEBIAN = Python("/usr/bin/python3.11", (3, 11))
HAND_MADE = Python("/opt/python/bin/python3.12", (3, 12))
PYPI = Ros("kilted")


def packages(python: Python, ros: Ros, profile: str) -> set[str]:
    return {need.package for need in needs(python, ros, profile)}


def test_a_python_of_the_distribution_needs_its_other_pieces() -> None:
    assert {"python3.11-venv", "python3.11-dev"} <= packages(DEBIAN, PYPI, "run")
    assert not any(name.startswith("python3") for name in packages(HAND_MADE, PYPI, "run"))


def test_the_sound_server_is_for_the_tests_alone() -> None:
    assert "pulseaudio" in packages(DEBIAN, PYPI, "test")
    assert "pulseaudio" not in packages(DEBIAN, PYPI, "run")


def test_a_browser_is_installed_where_it_is_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_packages, "distribution", lambda: "debian")
    assert "chromium" in packages(DEBIAN, PYPI, "test")
    monkeypatch.setattr(system_packages, "distribution", lambda: "ubuntu")
    assert "chromium" not in packages(DEBIAN, PYPI, "test")


def test_a_ros_of_the_distribution_is_completed() -> None:
    jazzy = Ros("jazzy", ("/opt/ros/jazzy",))
    assert "ros-jazzy-rosidl-default-generators" in packages(DEBIAN, jazzy, "run")
    own = Ros("jazzy", ("/home/me/ros2_ws/install",))
    assert not any(name.startswith("ros-") for name in packages(DEBIAN, own, "run"))


def test_what_dpkg_lacks_but_is_there_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_packages.shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(system_packages, "installed_by_dpkg", lambda names: {"known"})
    wanted = [
        Need("known to dpkg", "known", lambda: False),
        Need("built by hand", "unknown", lambda: True),
        Need("absent", "absent", lambda: False),
    ]
    assert [need.what for need in missing(wanted)] == ["absent"]


ABSENT = [Need("a", "liba", lambda: False), Need("PortAudio", "libportaudio2", lambda: False)]


def test_without_the_right_to_install_one_line_to_run_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(system_packages.shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(system_packages, "apt_prefix", lambda: None)
    with pytest.raises(SetupError) as stopped:
        install(ABSENT, Progress(5, tmp_path))
    line = "sudo apt-get update && sudo apt-get install -y liba libportaudio2\n"
    assert line in str(stopped.value)


def test_a_system_without_apt_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(system_packages.shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match=r"PortAudio.*libportaudio2"):
        install(ABSENT, Progress(5, tmp_path))


def test_root_installs_all_in_one_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[list[str]] = []
    progress = Progress(5, tmp_path)
    monkeypatch.setattr(system_packages.shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(system_packages, "apt_prefix", list)
    monkeypatch.setattr(
        progress, "run", lambda command, environment, may_fail=False: commands.append(command)
    )
    install(ABSENT, progress)
    assert [command[0] for command in commands] == ["apt-get", "apt-get"]
    assert commands[0][-1] == "update"
    assert commands[1][-4:] == ["-y", "--no-install-recommends", "liba", "libportaudio2"]

"""What this machine has: a suitable Python, a sourced ROS 2, apt and the right to use it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

OLDEST = (3, 10)
NEWEST = (3, 13)

# What a sourced ROS, another virtual environment or a wheel's start-up hook leaves behind.
ROS_VARIABLES = (
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "ROS_DISTRO",
)
LEFTOVERS = ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "PYTHONHOME", "PIP_USER", "__PYVENV_LAUNCHER__")


class SetupError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Python:
    """An interpreter outside any virtual environment."""

    path: str
    version: tuple[int, int]

    @property
    def name(self) -> str:
        return f"Python {self.version[0]}.{self.version[1]}"


@dataclass(frozen=True)
class Ros:
    """Where ROS 2 comes from: sourced in the shell, or wheels from PyPI (prefixes is empty)."""

    distro: str
    prefixes: tuple[str, ...] = ()

    @property
    def sourced(self) -> bool:
        return bool(self.prefixes)

    @property
    def name(self) -> str:
        where = f"sourced from {self.prefixes[-1]}" if self.sourced else "from PyPI"
        return f"ROS 2 {self.distro.capitalize()} {where}"


def clean_environment(environment: Mapping[str, str], ros: Ros) -> dict[str, str]:
    """The environment for child processes: without what would mix two Pythons or two ROS."""
    drop = set(LEFTOVERS) if ros.sourced else set(LEFTOVERS) | set(ROS_VARIABLES)
    return {name: value for name, value in environment.items() if name not in drop}


def sourced_ros(environment: Mapping[str, str]) -> Ros | None:
    """The ROS 2 that this shell has sourced, if any.

    AMENT_PREFIX_PATH alone decides: ROS_DISTRO is also set by those who only pick a version.
    """
    prefixes = tuple(p for p in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p)
    if not prefixes:
        return None
    return Ros(environment.get("ROS_DISTRO") or "(unnamed)", prefixes)


def choose_ros(environment: Mapping[str, str]) -> Ros:
    """The ROS that is sourced, else the one from PyPI; MINICPMO_ROS names another of those.

    Raises SetupError where neither can be.
    """
    sourced = sourced_ros(environment)
    if sourced:
        return sourced
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise SetupError(
            f"ROS 2 on PyPI is for x86-64 Linux, this is {platform.machine()} {sys.platform}."
            " Install ROS 2 (Humble, Jazzy or Kilted), source it and run this again:"
            " . /opt/ros/<distro>/setup.sh"
        )
    return Ros(environment.get("MINICPMO_ROS") or "kilted")


def probe(executable: str, environment: Mapping[str, str], module: str | None) -> Python | None:
    """The interpreter behind `executable`, or None where it does not run or lacks `module`."""
    code = "import json, sys; print(json.dumps([sys._base_executable, *sys.version_info[:2]]))"
    if module:
        code = f"import {module}; {code}"
    try:
        done = subprocess.run(
            [executable, "-c", code],
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=60,
        )
        path, major, minor = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    return Python(os.path.realpath(path), (major, minor))


def find_python(ros: Ros, environment: Mapping[str, str]) -> Python:
    """The first suitable interpreter: the one that runs this, then those on the path.

    With a sourced ROS it must be one that can import rclpy. Raises SetupError.
    """
    children = clean_environment(environment, ros)
    versions = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    names = [sys.executable, "python3", *versions, "/usr/bin/python3"]
    seen = []
    for name in dict.fromkeys(shutil.which(name) for name in names):
        python = probe(name, children, "rclpy" if ros.sourced else None) if name else None
        if python and OLDEST <= python.version <= NEWEST:
            return python
        if python and python.name not in seen:
            seen.append(python.name)
    wanted = f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    found = f" (found: {', '.join(seen)})" if seen else ""
    if ros.sourced:
        raise SetupError(
            f"{ros.name}, but no {wanted} on the path can import its rclpy{found}."
            " Install ros-<distro>-rclpy, or use a shell without ROS: then it comes from PyPI."
        )
    raise SetupError(f"{wanted} is needed and none is on the path{found}. Install one of them.")


def apt_prefix() -> list[str] | None:
    """What to put before an apt-get call: nothing for root, sudo where it asks no password.

    None where apt is there and may not be used.
    """
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        asked = subprocess.run(["sudo", "-n", "true"], capture_output=True)
        if asked.returncode == 0:
            return ["sudo", "-n"]
    return None

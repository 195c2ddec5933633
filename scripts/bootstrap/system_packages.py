"""The few things that pip cannot bring: a compiler, Python's headers, and the sound libraries."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scripts.bootstrap.machine import Python, Ros, SetupError, apt_prefix
from scripts.bootstrap.progress import Progress

ROS_PACKAGES = (
    "ament-cmake",
    "diagnostic-msgs",
    "launch-ros",
    "rclpy",
    "rosidl-default-generators",
    "sensor-msgs",
    "std-srvs",
)


@dataclass(frozen=True)
class Need:
    """Something the system must have. `present` is asked where there is no dpkg to ask."""

    what: str
    package: str
    present: Callable[[], bool]


def has_program(name: str) -> bool:
    return shutil.which(name) is not None


def has_library(name: str) -> bool:
    return ctypes.util.find_library(name) is not None


def has_alsa_pulse() -> bool:
    module = "alsa-lib/libasound_module_pcm_pulse.so"
    return any(any(Path(lib).glob(f"**/{module}")) for lib in ("/usr/lib", "/usr/lib64"))


def distribution() -> str:
    """ID of /etc/os-release, such as debian or ubuntu."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return ""
    return next((line[3:].strip('"') for line in lines if line.startswith("ID=")), "")


def python_says(python: Python, code: str) -> bool:
    return subprocess.run([python.path, "-c", code], capture_output=True).returncode == 0


def needs(python: Python, ros: Ros, profile: str) -> list[Need]:
    """What `profile` needs, in the names of Debian and Ubuntu."""
    wanted = [
        Need("a C++ compiler", "g++", partial(has_program, "c++")),
        Need("PortAudio", "libportaudio2", partial(has_library, "portaudio")),
        Need("the speech synthesiser", "libespeak-ng1", partial(has_library, "espeak-ng")),
    ]
    if python.path.startswith("/usr/bin/"):
        # A Python of the distribution comes in pieces; others are whole.
        version = "python{}.{}".format(*python.version)
        header = "import sysconfig as s; open(s.get_path('include') + '/Python.h').close()"
        wanted += [
            Need("venv", f"{version}-venv", partial(python_says, python, "import venv, ensurepip")),
            Need("Python's headers", f"{version}-dev", partial(python_says, python, header)),
        ]
    if profile == "test":
        wanted += [
            Need("PulseAudio", "pulseaudio", partial(has_program, "pulseaudio")),
            Need("PulseAudio's tools", "pulseaudio-utils", partial(has_program, "parec")),
            Need("ALSA's door to PulseAudio", "libasound2-plugins", has_alsa_pulse),
        ]
        if distribution() == "debian":
            # Ubuntu has Chromium as a snap alone; there the tests use what browser they find.
            wanted.append(Need("a browser", "chromium", partial(has_program, "google-chrome")))
    if ros.sourced:
        wanted.append(Need("CMake", "cmake", partial(has_program, "cmake")))
    if any(prefix.startswith("/opt/ros/") for prefix in ros.prefixes):
        for name in ROS_PACKAGES:
            share = f"share/{name.replace('-', '_')}"
            found = partial(in_a_prefix, ros.prefixes, share)
            wanted.append(Need(f"ROS's {name}", f"ros-{ros.distro}-{name}", found))
    return wanted


def in_a_prefix(prefixes: tuple[str, ...], share: str) -> bool:
    return any(Path(prefix, share).is_dir() for prefix in prefixes)


def installed_by_dpkg(packages: list[str]) -> set[str]:
    """Those of `packages` that dpkg has installed."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
    )
    lines = (line.split() for line in done.stdout.splitlines())
    return {line[0] for line in lines if line[1:] == ["installed"]}


def missing(wanted: list[Need]) -> list[Need]:
    """What is not there. A need that dpkg does not know of may have been met by hand."""
    if shutil.which("dpkg-query"):
        there = installed_by_dpkg([need.package for need in wanted])
    else:
        there = set()
    return [need for need in wanted if need.package not in there and not need.present()]


def install(absent: list[Need], progress: Progress) -> None:
    """Installs through apt where that is allowed; else raises SetupError with the line to run."""
    packages = [need.package for need in absent]
    what = ", ".join(need.what for need in absent)
    if not shutil.which("apt-get"):
        raise SetupError(
            f"Missing on this system: {what}. Install them with its package manager"
            f" (on Debian they are called {' '.join(packages)}) and run this again."
        )
    line = f"apt-get update && {{}}apt-get install -y {' '.join(packages)}"
    prefix = apt_prefix()
    if prefix is None:
        raise SetupError(
            f"Missing on this system: {what}. Run this once, then this again:\n\n    sudo "
            + line.format("sudo ")
            + "\n"
        )
    progress.say("    " + what)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    if prefix:
        prefix = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive"]
    # Another apt may be at work, as on a machine that has just started.
    apt = [*prefix, "apt-get", "-o", "DPkg::Lock::Timeout=300"]
    progress.run([*apt, "update"], environment, may_fail=True)
    progress.run([*apt, "install", "-y", "--no-install-recommends", *packages], environment)

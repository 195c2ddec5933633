"""The installed package: interfaces, share/ and executables, as ROS sees them."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from array import array
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rclpy.serialization import deserialize_message, serialize_message

import minicpmo_ros
from minicpmo_ros.share import share_directory

ROOT = Path(__file__).resolve().parents[2]
PREFIX = Path(sys.prefix)
NODES = ("camera", "mic", "omni", "speaker", "stack")
INTERFACES = sorted(
    path.relative_to(ROOT) for kind in ("msg", "srv", "action") for path in ROOT.glob(f"{kind}/*")
)


@pytest.mark.parametrize("path", INTERFACES, ids=str)
def test_an_interface_can_be_imported(path: Path) -> None:
    module = importlib.import_module(f"minicpmo_ros.{path.parent}")
    assert isinstance(getattr(module, path.stem), type)


@pytest.mark.parametrize("path", INTERFACES, ids=str)
def test_every_field_says_what_it_means(path: Path) -> None:
    """Constants need no words of their own: the field they are for has them."""
    lines = (ROOT / path).read_text().splitlines()
    fields = [line for line in lines if line.strip() and not line.startswith(("#", "---"))]
    silent = [line for line in fields if not re.search(r"#\s*\S|^\S+\s+[A-Z_]+\s*=", line)]
    assert silent == []


def test_a_message_survives_the_wire() -> None:
    from minicpmo_ros.msg import AudioChunk

    sent = AudioChunk(sequence=7, sample_rate=16000, channels=1, data=array("h", [-5, 0, 32767]))
    assert deserialize_message(serialize_message(sent), AudioChunk) == sent


def test_code_and_generated_half_are_one_package() -> None:
    import minicpmo_ros.msg

    assert Path(minicpmo_ros.__file__).parent == ROOT / "minicpmo_ros"
    assert PREFIX in Path(minicpmo_ros.msg.__file__).parents


def test_there_is_one_version() -> None:
    manifest = ET.parse(ROOT / "package.xml")
    assert manifest.findtext("version") == minicpmo_ros.__version__
    assert importlib.metadata.version("minicpmo_ros") == minicpmo_ros.__version__


def test_package_xml_is_valid() -> None:
    """An invalid one makes colcon take the package for plain Python, silently."""
    catkin_package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is missing")
    package = catkin_package.parse_package(str(ROOT))
    package.validate()
    assert package.get_build_type() == "ament_cmake"


def test_package_xml_names_every_ros_package_that_is_used() -> None:
    manifest = ET.parse(ROOT / "package.xml")
    named = {element.text for element in manifest.getroot() if element.tag.endswith("depend")}
    imports = r"^\s*(?:from|import) (rclpy|launch_ros|launch|\w+_msgs|\w+_interfaces|std_srvs)\b"
    sources = [*ROOT.glob("minicpmo_ros/**/*.py"), *ROOT.glob("launch/*.py")]
    used = {
        name for path in sources for name in re.findall(imports, path.read_text(), re.MULTILINE)
    }
    for path in INTERFACES:
        used |= set(re.findall(r"^(\w+)/\w+", (ROOT / path).read_text(), re.MULTILINE))
    assert {"rclpy", "sensor_msgs"} <= used
    assert used - named == set()


def test_share_holds_what_launch_files_look_for() -> None:
    share = PREFIX / "share" / "minicpmo_ros"
    for folder in ("msg", "srv", "action", "launch", "config", "engines"):
        source = {path.name for path in (ROOT / folder).iterdir() if path.is_file()}
        assert source <= {path.name for path in (share / folder).iterdir()}, folder
    marker = PREFIX / "share" / "ament_index" / "resource_index" / "packages" / "minicpmo_ros"
    assert marker.exists()


def test_the_checkout_is_its_own_share() -> None:
    assert share_directory() == ROOT


@pytest.mark.parametrize("node", NODES)
def test_a_node_is_an_executable_of_the_package(node: str) -> None:
    assert os.access(PREFIX / "lib" / "minicpmo_ros" / node, os.X_OK)
    assert callable(importlib.import_module(f"minicpmo_ros.nodes.{node}").main)


@pytest.mark.parametrize("own_python", [True, False])
def test_a_node_runs_with_the_python_of_its_prefix(tmp_path: Path, own_python: bool) -> None:
    """In a virtual environment its own; in a colcon install, which has none, that of the path."""
    installed = tmp_path / "lib" / "minicpmo_ros" / "mic"
    installed.parent.mkdir(parents=True)
    installed.write_bytes((PREFIX / "lib" / "minicpmo_ros" / "mic").read_bytes())
    installed.chmod(0o755)
    folders = {"path": tmp_path / "elsewhere"}
    if own_python:
        folders["prefix"] = tmp_path / "bin"
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "python3").write_text(f'#!/bin/sh\nshift 2\nprintf "%s|" {name} "$@"\n')
        (folder / "python3").chmod(0o755)
    done = subprocess.run(
        [installed, "--ros-args", "-r", "__ns:=/a b"],
        env={"PATH": f"{folders['path']}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    where = "prefix" if own_python else "path"
    assert done.stdout == f"{where}|--ros-args|-r|__ns:=/a b|"

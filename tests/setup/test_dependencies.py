"""What an installation pulls in: the base stays light, and pip and set-up read the same lists."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "tensorrt", "nvidia", "tensorflow", "jax")


def name_of(requirement: str) -> str:
    return re.split(r"[\s;<>=!~\[(]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def listed(file: str) -> set[str]:
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    return {name_of(line) for line in lines if line and not line.startswith("#")}


def required(package: str) -> set[str]:
    """What an installed package asks for without extras."""
    try:
        wanted = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return set()  # for another Python or platform
    return {name_of(line) for line in wanted if "extra ==" not in line}


def test_the_base_install_asks_for_nothing_heavy_however_indirectly() -> None:
    seen: set[str] = set()
    waiting = listed("base.txt")
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= required(name) - seen
    assert {"numpy", "protobuf"} <= seen  # the walk has gone beyond the list itself
    assert not [name for name in seen if name.startswith(HEAVY)]


def test_pip_knows_the_lists_of_set_up() -> None:
    assert required("minicpmo-ros") == listed("base.txt")


def test_ros_is_pinned() -> None:
    """Interfaces are compiled against one set of wheels."""
    for file in ("ros-kilted.txt", "ros-jazzy.txt"):
        lines = (ROOT / "requirements" / file).read_text().splitlines()
        ros = [line for line in lines if line.startswith("ros-")]
        assert ros
        assert [line for line in ros if "==" not in line] == []

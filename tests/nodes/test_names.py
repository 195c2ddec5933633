"""rclpy keeps its own lists under plain names; a node that reuses one goes deaf without a word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

lifecycle = pytest.importorskip("rclpy.lifecycle")
rclpy = pytest.importorskip("rclpy")

NODES = Path(__file__).parents[2] / "minicpmo_ros" / "nodes"


@pytest.fixture(scope="module")
def taken():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = lifecycle.LifecycleNode("names", context=context)
    names = set(vars(node))
    node.destroy_node()
    context.try_shutdown()
    return names


@pytest.mark.parametrize("path", sorted(NODES.glob("*.py")), ids=lambda path: path.name)
def test_no_node_hides_an_attribute_of_rclpy(path, taken):
    set_here = set(re.findall(r"self\.(\w+)(?::[^=\n]+)? = ", path.read_text()))
    assert not set_here & taken

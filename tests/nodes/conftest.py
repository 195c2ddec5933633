"""Tests of the nodes run real rclpy nodes in this process. Without rclpy they are skipped with the
reason; where a pipeline runs (CI=true) its absence is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.built_network import built, engines
from tests.tiny_network import tiny_checkpoint

__all__ = ["built", "engines", "tiny_checkpoint"]

try:
    import rclpy  # noqa: F401

    MISSING = ""
except ImportError as error:
    MISSING = f"no ROS 2 here ({error}): `make setup` installs it, or source yours"

if os.environ.get("CI") == "true":
    MISSING = ""  # the tests then fail on their imports


class _WithoutRos(pytest.Module):
    def collect(self):
        pytest.skip(MISSING, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent):
    return _WithoutRos.from_parent(parent, path=module_path) if MISSING else None


@pytest.fixture
def robot(monkeypatch) -> Iterator:
    """Nodes on demand, with a quick voice of tones instead of espeak-ng's."""
    from minicpmo_ros.brains import build
    from tests.nodes.robot import Robot, ToneVoice

    monkeypatch.setattr(build, "Synthesiser", ToneVoice)
    with Robot() as made:
        yield made


@pytest.fixture
def simulation(robot):
    """The same robot in simulated time, which goes on only when the test says so."""
    robot.simulate()
    return robot

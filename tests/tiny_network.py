"""A random checkpoint, for the rooms whose tests need the network: their conftest imports this.

Where there is no torch, these rooms are skipped.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest


class WithoutTorch(pytest.Module):
    def collect(self) -> list[pytest.Item]:
        pytest.skip("the network needs the extra model", allow_module_level=True)


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    """In place of a module that could not be imported, one that says why."""
    if find_spec("torch"):
        return None
    return WithoutTorch.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of 1024 tokens, seed 0. Only to be read."""
    from minicpmo_ros.model.tiny import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def own_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "own"))

"""A random checkpoint, and networks that are built of it, for the tests of this room, which are
skipped where there is no torch."""

from __future__ import annotations

import pytest

from minicpmo_ros.errors import EngineError
from tests.built_network import built, engines
from tests.tiny_network import own_checkpoint, pytest_pycollect_makemodule, tiny_checkpoint

__all__ = ["built", "engines", "own_checkpoint", "pytest_pycollect_makemodule", "tiny_checkpoint"]


@pytest.fixture
def no_card() -> None:
    """Skips where there is one."""
    from minicpmo_ros.runtime.trt.card import Card

    try:
        Card()
    except EngineError:
        return
    pytest.skip("there is a card")

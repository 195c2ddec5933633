"""A random checkpoint, and networks that are built of it, for the tests of this room, which are
skipped where there is no torch."""

from tests.built_network import built, engines
from tests.tiny_network import own_checkpoint, pytest_pycollect_makemodule, tiny_checkpoint

__all__ = ["built", "engines", "own_checkpoint", "pytest_pycollect_makemodule", "tiny_checkpoint"]

"""A random checkpoint for the tests of this room, which are skipped where there is no torch."""

from tests.tiny_network import own_checkpoint, pytest_pycollect_makemodule, tiny_checkpoint

__all__ = ["own_checkpoint", "pytest_pycollect_makemodule", "tiny_checkpoint"]

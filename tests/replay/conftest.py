"""A small network for the tests of this room that ask for one; the others need no torch."""

from tests.built_network import built, engines
from tests.tiny_network import tiny_checkpoint

__all__ = ["built", "engines", "tiny_checkpoint"]

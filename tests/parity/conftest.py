"""Checkpoints and golden pairs for the tests of this room, which are skipped without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_network import pytest_pycollect_makemodule

__all__ = ["pytest_pycollect_makemodule"]


@pytest.fixture(scope="session")
def published_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that the reference ran, with as much of its tokenizer as matters."""
    from minicpmo_ros.model.tiny import PUBLISHED_VOCAB, write_checkpoint
    from tests.parity.stand_in import write_tokenizer

    directory = tmp_path_factory.mktemp("parity") / "published"
    write_checkpoint(directory, seed=0, vocab=PUBLISHED_VOCAB)
    write_tokenizer(directory)
    return directory


@pytest.fixture(scope="session")
def wide_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seed 7 of `write_wide`. Only to be read."""
    from tests.parity.making import write_wide

    return write_wide(tmp_path_factory.mktemp("parity") / "wide", seed=7)


@pytest.fixture(scope="session")
def wide_pair(wide_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of a pair of our own making. Only to be read."""
    from tests.parity.making import make_pair

    return make_pair(wide_checkpoint, tmp_path_factory.mktemp("parity") / "wide_pair")

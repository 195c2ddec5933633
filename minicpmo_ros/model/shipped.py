"""Checkpoints by name: those that ship inside the package, beside directories of one's own."""

from __future__ import annotations

from pathlib import Path

from minicpmo_ros.errors import CheckpointError

NANO = "nano"
_PACKAGE = Path(__file__).resolve().parents[1]


def checkpoint_directory(checkpoint: str | Path) -> Path:
    """The directory of a checkpoint: `nano`, or a path. A directory of one's own with that name
    needs its whole path.

    Raises:
        CheckpointError: see `nano_directory`; whether a path leads anywhere is not looked at.
    """
    return nano_directory() if str(checkpoint) == NANO else Path(checkpoint).expanduser()


def nano_directory() -> Path:
    """The checkpoint that ships: minicpmo_ros/nano/checkpoint in the installed package.

    Raises:
        CheckpointError: it is not in this installation.
    """
    directory = _PACKAGE / "nano" / "checkpoint"
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"checkpoint '{NANO}' is not in this installation: {directory} has no config.json;"
            " install the package again, or give the directory of another checkpoint"
        )
    return directory

"""Room on a disk: asked for before something large is written, and told of when it ran out."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.engines.build_lock import unusable

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
HOW_TO_MAKE_ROOM = (
    "make room (`minicpmo engines clean` removes what is of no use any more), or set"
    " MINICPMO_ENGINES to a folder on another disk"
)


def bytes_text(nbytes: float) -> str:
    """For people: 4.82 GB, 12.0 MB, 3.1 kB."""
    for unit, size, digits in (("GB", 1e9, 2), ("MB", 1e6, 1)):
        if nbytes >= size / 10:
            return f"{nbytes / size:.{digits}f} {unit}"
    return f"{nbytes / 1e3:.1f} kB"


def free_bytes(folder: Path) -> int:
    """What may still be written where the folder is, or will be.

    Raises:
        EngineError: the system does not let one look.
    """
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        return shutil.disk_usage(there).free
    except OSError as error:
        raise unusable(folder, error) from error


def check_disk(folder: Path, nbytes: int, what: str = "what is to be written") -> None:
    """Raise EngineError unless so many bytes are free where the folder is, or will be."""
    free = free_bytes(folder.absolute())
    if nbytes > free:
        raise EngineError(
            f"{folder}: {what} needs {bytes_text(nbytes)} of disk, {bytes_text(free)} are free;"
            f" {HOW_TO_MAKE_ROOM}"
        )


def is_full(error: BaseException | None) -> bool:
    """Whether an error is that of a full disk or quota, or was raised because of one."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        if any(os.strerror(number) in str(error) for number in _NO_SPACE):
            return True  # as libraries in other languages pass it on
        error = error.__cause__ or error.__context__
    return False

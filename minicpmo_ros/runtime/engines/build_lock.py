"""A lock between processes that build the same engine. The kernel takes it from a dead process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minicpmo_ros.errors import EngineError

Say = Callable[[str], None]
POLL_S = 0.2
# A wait tells that it goes on.
REMIND_S = 10.0


def unusable(folder: Path, error: OSError) -> EngineError:
    """What to raise of a folder of engines that the system does not let one into."""
    return EngineError(
        f"{folder} cannot be written to ({error.strerror or error}); set MINICPMO_ENGINES to a"
        " folder that can"
    )


@contextmanager
def locked(file: Path, what: str, say: Say) -> Iterator[None]:
    """Hold the lock; where another has it, wait, and say for whom, again every REMIND_S.

    It also holds between threads. An exception of `say`, or Ctrl-C, ends the wait.

    Raises:
        EngineError: the file cannot be made, or its file system has no locks.
    """
    with _open(file) as descriptor:
        began = time.monotonic()
        reminded = -REMIND_S
        while not _take(descriptor, file):
            waited = time.monotonic() - began
            if waited - reminded >= REMIND_S:
                holder = _read(descriptor) or "another process"
                say(f"waiting for {holder}" + (f" ({waited:.0f} s)" if reminded >= 0 else ""))
                reminded = waited
            time.sleep(POLL_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, which {what}".encode(), 0)
        yield


@contextmanager
def locked_if_free(file: Path) -> Iterator[bool]:
    """Hold the lock, or give False at once where another has it."""
    with _open(file) as descriptor:
        yield _take(descriptor, file)


def is_locked(file: Path) -> bool:
    """Whether another holds the lock now; nothing is made to find out."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:  # never locked, or not to be opened: who locks it is told
        return False
    try:
        # Shared, so that two who ask do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _open(file: Path) -> Iterator[int]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unusable(file.parent, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)  # and the lock goes with it


def _take(descriptor: int, file: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise EngineError(
            f"{file.parent}: its file system has no locks ({error.strerror}); set MINICPMO_ENGINES"
            " to a folder on a local disk"
        ) from error
    return True


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace")

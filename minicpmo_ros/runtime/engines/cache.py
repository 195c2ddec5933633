"""Where what was built for a stage is kept, so that it is built once and never mistaken.

Each entry is a folder with the stage's files and a manifest.json, asked for by a key that holds all
it depends on. It is made under another name, under a lock, and gets its own name when it is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.engines.build_lock import (
    Say,
    is_locked,
    locked,
    locked_if_free,
    unusable,
)
from minicpmo_ros.runtime.engines.cache_entry import (
    EngineKey,
    Entry,
    check_sizes,
    read_manifest,
    write_manifest,
)
from minicpmo_ros.runtime.engines.disk import (
    HOW_TO_MAKE_ROOM,
    bytes_text,
    check_disk,
    free_bytes,
    is_full,
)

Make = Callable[[Path], None]
"""Fills the folder that it is given with a stage's files."""

_LOCKS = ".locks"
_PART = ".part"
# Only what has such a name is ever removed.
_OURS = re.compile(r"[a-z0-9_.]+-[0-9a-f]{16}(\.part)?")


def default_folder() -> Path:
    """$MINICPMO_ENGINES, else minicpmo_ros/engines in the user's folder for caches.

    Raises:
        EngineError: nobody knows the user's home directory, as in some containers.
    """
    if own := os.environ.get("MINICPMO_ENGINES"):
        return _expanded(own)
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _expanded(caches) / "minicpmo_ros" / "engines"


@dataclass(frozen=True)
class Cleaned:
    """Names of the entries that were removed and of those in use by a build, and bytes freed."""

    removed: list[str] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)
    nbytes: int = 0


class EngineCache:
    """The entries in one folder, which other processes may use at the same time.

    Args:
        folder: made when something is built; `default_folder()` if None.

    Raises:
        EngineError: it begins with the home directory of a user who has none.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self._folder = None if folder is None else _expanded(folder)

    @property
    def folder(self) -> Path:
        """Where entries are; raises EngineError where there is no `default_folder`."""
        # Not before it is needed: what ships with a checkpoint is loaded without it.
        if self._folder is None:
            self._folder = default_folder()
        return self._folder

    @property
    def fingerprints(self) -> Path | None:
        """The memory of `model.fingerprint`; None where there is no folder for it."""
        try:
            return self.folder / "checkpoints.json"
        except EngineError:
            return None

    def find(self, key: EngineKey) -> Entry | None:
        """The entry of a key, its files there and of the right size; None if it was never built.

        Raises:
            EngineError: it is damaged, and the message names the file; or it cannot be read.
        """
        folder = self.folder / key.name
        try:
            if not folder.is_dir():
                return None
        except OSError as error:
            raise unusable(self.folder, error) from error
        entry = read_manifest(folder)
        if entry.key != key:
            raise EngineError(
                f"{folder} holds another engine than its name says, that of {entry.key.name};"
                f" remove it with `minicpmo engines clean {key.name}`"
            )
        check_sizes(entry)
        return entry

    def ensure(
        self,
        key: EngineKey,
        make: Make,
        say: Say = lambda text: None,
        *,
        nbytes: int = 0,
        source: Path | str = "",
    ) -> Path:
        """The folder of a key's entry, built if it is not there or damaged.

        Of several processes that want the same entry one builds it, and the others wait for it.
        Whatever ends a build early (an exception, Ctrl-C, a kill) leaves nothing that `find` finds.

        Args:
            make: what it raises goes on to the caller, save that of a full disk.
            say: gets lines for the user: whom one waits for, and what was damaged.
            nbytes: disk that `make` will need, checked before it begins.
            source: directory of the checkpoint, for `entries` to tell.

        Raises:
            EngineError: the disk is full, or the folder cannot be written to.
        """
        if entry := self._find_whole(key, say):
            return entry.folder
        with locked(self._lock(key.name), f"builds {key.stage}", say):
            if entry := self._find_whole(key, lambda text: None):
                return entry.folder
            self._remove(key.name)
            self._remove(key.name + _PART)
            self._sweep()
            if nbytes:
                check_disk(self.folder, nbytes, key.stage)
            part = self.folder / (key.name + _PART)
            with self._full_disk(part, key, nbytes):
                self._build(key, make, part, str(source))
        return self.folder / key.name

    def alone(self, name: str, what: str, say: Say) -> AbstractContextManager[None]:
        """Hold the lock of a file of this folder that is no entry; see `build_lock.locked`."""
        return locked(self._lock(name), what, say)

    def is_being_built(self, key: EngineKey) -> bool:
        """Whether another process, or thread, is building the entry of a key now."""
        return is_locked(self._lock(key.name))

    def entries(self) -> list[Entry]:
        """What is there and has a readable manifest, by name.

        Raises:
            EngineError: the folder cannot be read.
        """
        found = []
        for folder in self._folders():
            with contextlib.suppress(EngineError):
                found.append(read_manifest(folder))
        return found

    def broken(self) -> dict[str, str]:
        """What cannot be loaded, by name, and what is wrong with it; leftovers of builds, too."""
        found = {}
        for folder in self._folders(parts=True):
            if folder.suffix == _PART:
                found[folder.name] = "was never finished, or is being built"
                continue
            try:
                check_sizes(read_manifest(folder))
            except EngineError as error:
                found[folder.name] = str(error)
        return found

    def clean(self, names: Iterable[str]) -> Cleaned:
        """Remove entries or leftovers, by name, save those that a build holds.

        Raises:
            EngineError: there is none of a name, or it cannot be removed.
        """
        there = {folder.name for folder in self._folders(parts=True)}
        done = Cleaned()
        nbytes = 0
        for name in names:
            if name not in there:
                known = ", ".join(sorted(there)) or "nothing"
                raise EngineError(f"'{name}' is not in {self.folder}; there is {known}")
            with locked_if_free(self._lock(name.removesuffix(_PART))) as free:
                if not free:
                    done.locked.append(name)
                    continue
                nbytes += _size(self.folder / name)
                self._remove(name)
                done.removed.append(name)
        return Cleaned(done.removed, done.locked, nbytes)

    def _find_whole(self, key: EngineKey, say: Say) -> Entry | None:
        try:
            return self.find(key)
        except EngineError as error:
            say(f"{error}; it is built again")
            return None

    def _build(self, key: EngineKey, make: Make, part: Path, source: str) -> None:
        began = time.monotonic()
        try:
            part.mkdir(parents=True)
            make(part)
            write_manifest(
                part,
                key,
                made=datetime.now(timezone.utc),
                seconds=time.monotonic() - began,
                source=source,
            )
            part.rename(self.folder / key.name)
            _sync(self.folder)
        except BaseException:
            # Also Ctrl-C; what a kill leaves is swept away by the next build.
            shutil.rmtree(part, ignore_errors=True)
            raise

    @contextmanager
    def _full_disk(self, part: Path, key: EngineKey, nbytes: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_full(error):
                raise
            needs = f", which needs {bytes_text(nbytes)}" if nbytes else ""
            raise EngineError(
                f"{self.folder}: the disk was full before {key.stage} was whole{needs};"
                f" {bytes_text(free_bytes(self.folder))} are free without it; {HOW_TO_MAKE_ROOM}"
            ) from error

    def _folders(self, *, parts: bool = False) -> list[Path]:
        """Those that are ours by their names; what else lies there is nobody's business."""
        try:
            if not self.folder.is_dir():
                return []
            return sorted(
                path
                for path in self.folder.iterdir()
                if _OURS.fullmatch(path.name)
                and path.is_dir()
                and not path.is_symlink()
                and (parts or path.suffix != _PART)
            )
        except OSError as error:
            raise unusable(self.folder, error) from error

    def _lock(self, name: str) -> Path:
        return self.folder / _LOCKS / name

    def _sweep(self) -> None:
        """Remove what builds that were killed have left."""
        for folder in self._folders(parts=True):
            if folder.suffix == _PART:
                with locked_if_free(self._lock(folder.name.removesuffix(_PART))) as free:
                    if free:
                        # Another user's that cannot be removed is no reason not to build.
                        with contextlib.suppress(EngineError):
                            self._remove(folder.name)

    def _remove(self, name: str) -> None:
        """At once for others, for whom half an entry must never be there."""
        folder = self.folder / name
        if not folder.is_dir():
            return
        part = self.folder / (name.removesuffix(_PART) + _PART)
        try:
            if folder != part:
                shutil.rmtree(part, ignore_errors=True)
                folder.rename(part)
            shutil.rmtree(part)
        except OSError as error:
            raise EngineError(f"{folder} cannot be removed: {error.strerror}") from error


def _expanded(folder: Path | str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise EngineError(
            f"{folder}: the user has no home directory here; set MINICPMO_ENGINES to a folder for"
            " what is built, with its whole path"
        ) from None


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _sync(folder: Path) -> None:
    """A power cut must not undo the renaming while what was written about it stays."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

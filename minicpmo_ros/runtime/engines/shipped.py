"""What was built before and lies beside a checkpoint's weights, in its folder `engines`.

It is looked at before the user's cache and never written to, for an installed package may be
read-only. Its entries are found by the same keys, which hold the checkpoint's fingerprint: those of
other weights are never used. Only what depends on no machine ships: graphs and tables.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.sums import SUMS
from minicpmo_ros.runtime.engines.build_lock import Say
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_cleaning import superseded
from minicpmo_ros.runtime.engines.cache_entry import (
    MANIFEST,
    EngineKey,
    Entry,
    read_manifest,
    verify,
    write_manifest,
)
from minicpmo_ros.runtime.engines.pieces import ANY_MACHINE

FOLDER = "engines"


class ShippedEngines:
    """The entries beside a checkpoint; there may be none.

    Args:
        checkpoint: its directory.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._cache = EngineCache(checkpoint / FOLDER)

    @property
    def folder(self) -> Path:
        return self._cache.folder

    def find(self, key: EngineKey, say: Say = lambda text: None) -> Path | None:
        """The folder of a key's entry, its files there and of their size; None if it is not there.

        say: is told of one that is damaged, which is then as one that is not there.
        """
        if key.target != ANY_MACHINE:
            return None
        try:
            entry = self._cache.find(key)
        except EngineError:
            say(f"{self.folder / key.name}, which came with the checkpoint, is damaged: not used")
            return None
        return entry.folder if entry else None

    def names(self) -> set[str]:
        """Of the entries that are there and can be read."""
        try:
            return {entry.name for entry in self._cache.entries()}
        except EngineError:
            return set()

    def put(self, folders: Iterable[Path], current: Iterable[str] = ()) -> list[Path]:
        """Copy entries here, and remove what nothing will load again: those of other weights and
        of older versions.

        Args:
            current: fingerprints of what lies beside this folder now, of which nothing is removed
                either; those of the entries need not be among them.

        Returns:
            Where they are now, in their order.

        Raises:
            EngineError: one depends on a machine or is damaged, or the folder cannot be written to.
        """
        entries = [read_manifest(folder) for folder in folders]
        for entry in entries:
            if entry.key.target != ANY_MACHINE:
                raise EngineError(
                    f"{entry.key.stage} was built for {entry.key.target}: only what any machine"
                    " loads can ship, that is graphs for onnxruntime and tables"
                )
        try:
            # What it lists is there no more in a moment; whoever ships writes it anew.
            (self.folder.parent / SUMS).unlink(missing_ok=True)
            self._remove_others({*current, *(entry.key.checkpoint for entry in entries)})
            copied = [self._copied(entry) for entry in entries]
            for entry in superseded(self._cache.entries()):
                shutil.rmtree(entry.folder)
        except OSError as error:
            # Of several files that could not be copied, shutil's error has no strerror.
            said = error.strerror or error
            raise EngineError(f"{self.folder} cannot be written to: {said}") from None
        return copied

    def _copied(self, entry: Entry) -> Path:
        target = self.folder / entry.name
        if entry.folder == target:
            return target
        verify(entry)
        part = self.folder / f"{entry.name}.part"
        for old in (part, target):
            if old.exists():
                shutil.rmtree(old)
        shutil.copytree(entry.folder, part, ignore=shutil.ignore_patterns(MANIFEST))
        # Without the directory of the machine that built it, which is nobody's business.
        write_manifest(part, entry.key, made=entry.made, seconds=entry.seconds, source="")
        part.rename(target)
        return target

    def _remove_others(self, checkpoints: set[str]) -> None:
        for entry in self._cache.entries():
            if entry.key.checkpoint not in checkpoints:
                shutil.rmtree(entry.folder)
        for name in self._cache.broken():
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self.folder / name)

"""What in the engine cache is of no use any more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from minicpmo_ros.errors import CheckpointError, EngineError
from minicpmo_ros.model.fingerprint import Progress, fingerprint, remembered_directories
from minicpmo_ros.model.vocoder import assets_of, vocoder_fingerprint
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_entry import Entry


def useless(cache: EngineCache, progress: Progress = lambda done, total: None) -> dict[str, str]:
    """Entries by name, and why nothing will load them again.

    Those of checkpoints that are gone or were changed, those that were built again for another
    version of their runtime, damaged ones, and what killed builds have left.

    Args:
        progress: of reading checkpoints that changed since they were last read.
    """
    found = cache.broken()
    entries = [entry for entry in cache.entries() if entry.name not in found]
    found |= {
        entry.name: f"was built again since {entry.key.runtime} {entry.key.version}"
        for entry in superseded(entries)
    }
    current = _current_fingerprints(cache, entries, progress)
    for entry in entries:
        # Of one that does not say where it is from, nothing is known.
        if entry.source and entry.key.checkpoint not in current:
            found[entry.name] = f"its checkpoint, {entry.source}, is gone or has changed"
    return found


def superseded(entries: Iterable[Entry]) -> list[Entry]:
    """Those that were built again since, for another version of their runtime."""
    newest: dict[object, Entry] = {}
    found = []
    for entry in sorted(entries, key=lambda entry: entry.made, reverse=True):
        if newest.setdefault(entry.key.without_version(), entry) is not entry:
            found.append(entry)
    return found


def calibrations(cache: EngineCache) -> list[str]:
    """Names of the files of scales (`jobs.calibration_file`), and of those that were begun."""
    return sorted(file.name for file in cache.folder.glob("calibration-*.npz*"))


def remove_calibrations(cache: EngineCache, names: Iterable[str]) -> int:
    """Remove some of `calibrations`; gives back their bytes.

    Raises:
        EngineError: one cannot be removed.
    """
    nbytes = 0
    for name in names:
        file = cache.folder / name
        try:
            size = file.stat().st_size
            file.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise EngineError(f"{file} cannot be removed: {error.strerror}") from error
        nbytes += size
    return nbytes


def _current_fingerprints(cache: EngineCache, entries: list[Entry], progress: Progress) -> set[str]:
    """Of all checkpoints that were ever used, as they are now."""
    directories = {*remembered_directories(cache.fingerprints)}
    directories |= {Path(entry.source) for entry in entries if entry.source}
    return {
        mark
        for directory in sorted(directories)
        for mark in fingerprints_of(directory, cache, progress)
    }


def fingerprints_of(directory: Path, cache: EngineCache, progress: Progress) -> set[str]:
    """Of a checkpoint's network and of its vocoder, as they are now; of what is not there, none."""
    found = set()
    with contextlib.suppress(CheckpointError):
        found.add(fingerprint(directory, cache.fingerprints, progress))
    with contextlib.suppress(CheckpointError):
        if assets := assets_of(directory):
            found.add(vocoder_fingerprint(assets, cache.fingerprints, progress))
    return found

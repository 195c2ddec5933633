"""Kernels that TensorRT-RTX compiled for this card, kept in a file beside the engine.

An engine holds what all its targets share; the last step, for the card and the sizes it meets, is
done where it runs, and takes seconds. TensorRT has no such step.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)


class Kernels:
    """What was compiled for one engine. Without a file nothing is kept."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._cache: Any = None
        self._kept = 0

    def give(self, config: Any) -> None:
        """To a runtime configuration; all execution contexts of an engine share them."""
        if not hasattr(config, "create_runtime_cache"):
            return
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            self._read()
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write them, if there are more than were read. A disk that is full costs only time."""
        if self._cache is None or self._file is None:
            return
        content = self._cache.serialize()
        if content is None or content.nbytes <= self._kept:
            return
        part = self._file.with_name(f"{self._file.name}.part")
        try:
            part.write_bytes(content)
            part.replace(self._file)
            self._kept = content.nbytes
        except OSError as error:
            part.unlink(missing_ok=True)
            _log.warning("%s is not written, kernels are compiled again next time: %s", part, error)

    def _read(self) -> None:
        if self._file is None or not self._file.is_file():
            return
        content = self._file.read_bytes()
        # Of another card or version it takes nothing, and says so.
        if content and self._cache.deserialize(content):
            self._kept = len(content)

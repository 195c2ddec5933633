"""How fast kernels were on this card: a file that builds share, so that each is measured once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from minicpmo_ros.runtime.engines.build_lock import locked
from minicpmo_ros.runtime.trt.library import Library


class TimingCache:
    """The file's content in one build. Without a file, or where the library measures nothing
    (`Library.times_kernels`), this does nothing."""

    def __init__(self, library: Library, file: Path | None) -> None:
        self._file = file if library.times_kernels else None

    def attach(self, config: Any) -> None:
        """Give the builder what is known. What another version or card has measured it ignores."""
        if self._file is None:
            return
        cache = config.create_timing_cache(self._read())
        if cache is None:
            cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)

    def save(self, config: Any) -> None:
        """Add what the builder measured to what other builds have written meanwhile."""
        file = self._file
        if file is None:
            return
        cache = config.get_timing_cache()
        lock = file.with_name(f"{file.name}.lock")
        with locked(lock, "writes the timing cache", lambda text: None):
            others = config.create_timing_cache(self._read())
            if others is not None:
                cache.combine(others, False)
            part = file.with_name(f"{file.name}.{os.getpid()}.part")
            part.write_bytes(cache.serialize())
            part.replace(file)

    def _read(self) -> bytes:
        assert self._file is not None
        return self._file.read_bytes() if self._file.is_file() else b""

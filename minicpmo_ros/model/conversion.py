"""Which .safetensors file was made of a .pt file, what both say unread. No torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.fingerprint import sha256

Shapes = dict[str, tuple[int, ...]]
# What is kept, and under which names; one of another layout is made anew.
LAYOUT = "2"


def default_cache() -> Path:
    """minicpmo_ros/weights in the user's folder for caches.

    Raises:
        CheckpointError: nobody knows the user's home directory, as in some containers.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(caches).expanduser() / "minicpmo_ros" / "weights"
    except RuntimeError:
        raise CheckpointError(
            f"{caches}: the user has no home directory here; set XDG_CACHE_HOME to a folder for"
            " weights that are converted, with its whole path"
        ) from None


def find(file: Path, cache: Path | None = None) -> Path | None:
    """What was made of a .pt file, of its bytes as they are or were; see
    `converted.made_of_weights`."""
    beside = file.with_suffix(".safetensors")
    if not file.exists():
        return beside if about(beside) else None
    source = Source(file)
    return next((place for place in source.places(cache) if source.is_in(place)), None)


def about(place: Path) -> Mapping[str, str]:
    """What a converted file says of itself; nothing if there is none that can be read, or nothing
    here to read it with."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        return {}
    try:
        with safe_open(place, framework="np") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def shapes(place: Path) -> Shapes:
    """Of the tensors in a converted file, by name; only its first bytes are read."""
    from safetensors import safe_open

    with safe_open(place, framework="np") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


class Source:
    """A .pt file, and whether something was made of it. Its bytes are read only where its size is
    right and its time is not, as in a copy."""

    def __init__(self, file: Path) -> None:
        found = file.stat()
        self._file = file
        self._stamp = {"size": str(found.st_size), "changed_ns": str(found.st_mtime_ns)}
        self._sha256 = ""

    def places(self, cache: Path | None) -> list[Path]:
        """Where what is made of it may lie: beside it, or in a folder with what is made of others;
        `default_cache()` if None, where there is one."""
        found = [self._file.with_suffix(".safetensors")]
        with contextlib.suppress(CheckpointError):
            name = f"{self._file.stem}-{self._name}.safetensors"
            found.append((cache or default_cache()) / name)
        return found

    @property
    def _name(self) -> str:
        return hashlib.sha256(str(self._file.resolve()).encode()).hexdigest()[:16]

    @property
    def sha256(self) -> str:
        self._sha256 = self._sha256 or sha256(self._file)
        return self._sha256

    @property
    def about(self) -> dict[str, str]:
        return {"format": "pt", "layout": LAYOUT, "of_sha256": self.sha256, **self._stamp}

    def is_in(self, place: Path) -> bool:
        said = about(place)
        if said.get("layout") != LAYOUT or said.get("size") != self._stamp["size"]:
            return False
        same_time = said.get("changed_ns") == self._stamp["changed_ns"]
        return same_time or said.get("of_sha256") == self.sha256

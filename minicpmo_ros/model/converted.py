"""Weights of a .pt file, kept as safetensors once they were read and found to be whole.

Reading a pickle safely takes a copy of all of it, so it is done once: a .safetensors file beside
it, or in a folder for caches where beside it nothing can be written, is read from then on.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.fingerprint import sha256
from minicpmo_ros.model.torch_file import read_torch_file

log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]
Made = TypeVar("Made")
# What is kept, and under which names; one of another layout is made anew.
LAYOUT = "2"


def default_cache() -> Path:
    """minicpmo_ros/weights in the user's folder for caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "minicpmo_ros" / "weights"


def made_of_weights(
    file: Path,
    make: Callable[[Tensors], Made],
    cache: Path | None = None,
    simplify: Callable[[Tensors], Tensors] = lambda tensors: tensors,
) -> Made:
    """What `make` makes of the tensors of a .pt file, by name, or of the .safetensors file that it
    was converted to.

    Args:
        file: need not be there any more if it was converted beside itself.
        make: copies what it keeps. What it refuses is not kept as safetensors.
        cache: folder for what cannot be written beside it; `default_cache()` if None. If neither
            can be written, a warning is logged, and the .pt file is read again each time.
        simplify: is done once, before tensors are kept.

    Raises:
        CheckpointError: missing, or see `read_torch_file`; and what `make` and `simplify` raise.
    """
    beside = file.with_suffix(".safetensors")
    if not file.exists():
        if _about(beside):
            return make(_load(beside))
        raise CheckpointError(
            f"{file} is missing; the published checkpoint has it in assets/token2wav"
        )
    source = _Source(file)
    places = (beside, (cache or default_cache()) / f"{file.stem}-{source.name}.safetensors")
    for place in places:
        if source.is_in(place):
            return make(_load(place))
    tensors = simplify(read_torch_file(file))
    made = make(tensors)
    refusals = []
    for place in places:
        try:
            _write(place, tensors, source.about)
        except (OSError, SafetensorError) as error:
            refusals.append(f"{place.parent}: {error}")
        else:
            return made
    log.warning("%s is converted at every start: %s", file, "; ".join(refusals))
    return made


class _Source:
    """A .pt file, and whether something was made of it. Its bytes are read only where its size is
    right and its time is not, as in a copy."""

    def __init__(self, file: Path) -> None:
        found = file.stat()
        self._file = file
        self._stamp = {"size": str(found.st_size), "changed_ns": str(found.st_mtime_ns)}
        self._sha256 = ""

    @property
    def name(self) -> str:
        """Of what is made of it, in a folder for what is made of others, too."""
        return hashlib.sha256(str(self._file.resolve()).encode()).hexdigest()[:16]

    @property
    def sha256(self) -> str:
        self._sha256 = self._sha256 or sha256(self._file)
        return self._sha256

    @property
    def about(self) -> dict[str, str]:
        return {"format": "pt", "layout": LAYOUT, "of_sha256": self.sha256, **self._stamp}

    def is_in(self, place: Path) -> bool:
        about = _about(place)
        if about.get("layout") != LAYOUT or about.get("size") != self._stamp["size"]:
            return False
        same_time = about.get("changed_ns") == self._stamp["changed_ns"]
        return same_time or about.get("of_sha256") == self.sha256


def _about(place: Path) -> Mapping[str, str]:
    """What a converted file says of itself; nothing if there is none that can be read."""
    try:
        with safe_open(place, framework="pt") as opened:
            return opened.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _load(place: Path) -> Tensors:
    try:
        return load_file(place)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{place} cannot be read ({error}); delete it and provide the .pt file"
        ) from None


def _write(place: Path, tensors: Tensors, about: dict[str, str]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        # Clones: tensors that share memory are not saved.
        copies = {key: value.clone().contiguous() for key, value in tensors.items()}
        save_file(copies, part, metadata=about)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)

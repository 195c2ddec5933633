"""Weights of a .pt file, kept as safetensors once they were read.

Reading a pickle safely takes a copy of all of it, so it is done once: a .safetensors file beside
it, or in a folder for caches where beside it nothing can be written, is read from then on.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.torch_file import read_torch_file

log = logging.getLogger(__name__)

_SOURCE = "source"


def default_cache() -> Path:
    """minicpmo_ros/weights in the user's folder for caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "minicpmo_ros" / "weights"


def read_weights(file: Path, cache: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a .pt file by name, or of the .safetensors file it was converted to.

    Args:
        file: need not be there any more if it was converted beside itself.
        cache: folder for what cannot be written beside it; `default_cache()` if None. If neither
            can be written, a warning is logged, and the .pt file is read again each time.

    Raises:
        CheckpointError: missing, or see `read_torch_file`.
    """
    beside = file.with_suffix(".safetensors")
    if not file.exists():
        if beside.exists():
            return _load(beside)
        raise CheckpointError(
            f"{file} is missing; the published checkpoint has it in assets/token2wav"
        )
    found = file.stat()
    source = f"{found.st_size} bytes of {found.st_mtime_ns} ns"
    name = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    places = (beside, (cache or default_cache()) / f"{file.stem}-{name}.safetensors")
    for place in places:
        if _source(place) == source:
            return _load(place)
    tensors = read_torch_file(file)
    refusals = []
    for place in places:
        try:
            _write(place, tensors, source)
        except (OSError, SafetensorError) as error:
            refusals.append(f"{place.parent}: {error}")
        else:
            return tensors
    log.warning("%s is converted at every start: %s", file, "; ".join(refusals))
    return tensors


def _source(place: Path) -> str | None:
    """What a converted file was made from; None if there is none that can be read."""
    try:
        with safe_open(place, framework="pt") as opened:
            return (opened.metadata() or {}).get(_SOURCE)
    except (OSError, SafetensorError):
        return None


def _load(place: Path) -> dict[str, Tensor]:
    try:
        return load_file(place)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{place} cannot be read ({error}); delete it and provide the .pt file"
        ) from None


def _write(place: Path, tensors: dict[str, Tensor], source: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        # Clones: tensors that share memory are not saved.
        copies = {key: value.clone().contiguous() for key, value in tensors.items()}
        save_file(copies, part, metadata={"format": "pt", _SOURCE: source})
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)

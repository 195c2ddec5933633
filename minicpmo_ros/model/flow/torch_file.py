"""Weights in a file of torch.save, read without running anything in it, and kept as safetensors.

A .pt file is a pickle, which could run code; only tensors in a dictionary are taken from it. That
takes a copy of all of it, so it is done once: a .safetensors file beside it, or in a folder for
caches where beside it nothing can be written, is read from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from minicpmo_ros.errors import CheckpointError

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
            can be written, the .pt file is read again each time.

    Raises:
        CheckpointError: missing, cut short, or not tensors and nothing else.
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
    for place in places:
        with contextlib.suppress(OSError, SafetensorError):
            _write(place, tensors, source)
            break
    return tensors


def read_torch_file(file: Path) -> dict[str, Tensor]:
    """The tensors of a .pt file by name, on the CPU.

    Raises:
        CheckpointError: see `read_weights`.
    """
    with file.open("rb") as opened:
        start = opened.read(8)
    if start == b"version ":
        raise CheckpointError(
            f"{file} is a git-lfs pointer, not weights; run `git lfs pull` in {file.parent}"
        )
    is_zip = start.startswith(b"PK")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if not is_zip:
            raise CheckpointError(_unreadable(file)) from None
        why = str(error).splitlines()[0]
        raise CheckpointError(
            f"{file} holds more than tensors, and nothing of it was run ({why}); it is not the"
            " published file"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError):
        raise CheckpointError(_unreadable(file)) from None
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items()
    ):
        raise CheckpointError(f"{file} is not a dictionary of tensors by name")
    return {key: value.detach() for key, value in found.items()}


def _unreadable(file: Path) -> str:
    return (
        f"{file} ({file.stat().st_size} bytes) is cut short or no file of torch.save; delete it and"
        " download it again"
    )


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

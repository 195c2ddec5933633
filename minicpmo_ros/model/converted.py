"""Weights of a .pt file, kept as safetensors once they were read and found to be whole.

Reading a pickle safely takes a copy of all of it, so it is done once: a .safetensors file beside
it, or in a folder for caches where beside it nothing can be written, is read from then on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.conversion import Source, find
from minicpmo_ros.model.torch_file import read_torch_file

log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]
Made = TypeVar("Made")


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
        cache: folder for what cannot be written beside it; None: `conversion.default_cache()`. If
            neither can be written, a warning is logged, and the .pt file is read again each time.
        simplify: is done once, before tensors are kept.

    Raises:
        CheckpointError: missing, or see `read_torch_file`; and what `make` and `simplify` raise.
    """
    if place := find(file, cache):
        return make(_load(place))
    if not file.exists():
        raise CheckpointError(
            f"{file} is missing; the published checkpoint has it in assets/token2wav"
        )
    tensors = simplify(read_torch_file(file))
    made = make(tensors)
    source, refusals = Source(file), []
    for place in source.places(cache):
        try:
            _write(place, tensors, source.about)
        except (OSError, SafetensorError) as error:
            refusals.append(f"{place.parent}: {error}")
        else:
            return made
    log.warning("%s is converted at every start: %s", file, "; ".join(refusals))
    return made


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

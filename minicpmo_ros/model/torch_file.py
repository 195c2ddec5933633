"""Files that torch.save wrote, read as data: a pickle's code is never run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.weight_files import listed


def read_torch_file(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, on the CPU, by name.

    Raises:
        CheckpointError: the file is missing, cut short, no such file, wants code to be run, or
            holds something other than named tensors.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} is not there")
    with file.open("rb") as opened:
        if opened.read(8) == b"version ":
            raise CheckpointError(
                f"{file} is a git-lfs pointer, not weights; run `git lfs pull` in {file.parent}"
            )
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} is not a file of weights only: it is damaged, or wants code to be run, which"
            f" is never done ({_first_line(error)})"
        ) from None
    # What torch raises over a damaged file depends on where the damage is.
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError) as error:
        size = file.stat().st_size
        raise CheckpointError(
            f"{file} ({size} bytes) cannot be read; it is cut short or not a file of torch.save:"
            f" {_first_line(error)}"
        ) from None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{file} holds a {type(found).__name__}, not tensors by name")
    others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{file} holds what are no tensors: {listed(others)}")
    return {str(name): tensor.detach() for name, tensor in found.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].strip() or type(error).__name__

"""From a training run to a checkpoint directory in the published layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.layout import shapes
from minicpmo_ros.model.sums import SUMS
from minicpmo_ros.model.weight_files import SINGLE
from minicpmo_ros.nano.card import write_card
from minicpmo_ros.nano.sizes import copy_settings
from minicpmo_ros.nano.training import STATE


def pack(
    run: Path,
    directory: Path,
    dtype: torch.dtype = torch.float16,
    figures: Path | None = None,
) -> Path:
    """Write config, tokenizer, settings, weights and card of a run into a directory.

    figures: of `minicpmo nano eval --json`, for the card.

    Raises:
        CheckpointError: the run has no state, or is of other sizes.
        InputError: the figures cannot be read.
    """
    state_file = run / STATE
    if not state_file.exists():
        raise CheckpointError(
            f"{run} holds no {STATE}, so nothing was trained there; `minicpmo nano train` does"
        )
    state = torch.load(state_file, map_location="cpu", weights_only=True)
    # Sums of other weights would forbid these.
    for old in (*directory.glob("*.safetensors"), directory / SUMS):
        old.unlink(missing_ok=True)
    shutil.rmtree(directory / "engines", ignore_errors=True)
    # The run's own tokenizer: that of this version may have learned from other sentences since.
    copy_settings(run, directory)
    wanted = shapes(ModelConfig.load(directory))
    weights = {name: one.to(dtype).contiguous() for name, one in state["nano"].items()}
    if {name: tuple(one.shape) for name, one in weights.items()} != wanted:
        raise CheckpointError(f"{state_file} is of other sizes than the config.json beside it")
    save_file(weights, directory / SINGLE, metadata={"format": "pt"})
    # An installed package is read by others than who installed it.
    (directory / SINGLE).chmod(0o644)
    write_card(directory, state, figures)
    return directory

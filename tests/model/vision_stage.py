"""The vision stage with the weights of a random checkpoint, the reference's outputs, pictures."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.part_configs import SliceConfig
from minicpmo_ros.model.picture import Patches, Slice, slices
from minicpmo_ros.model.tiny import config_json, tensor
from minicpmo_ros.model.vision import VisionStage
from minicpmo_ros.parity.inputs import picture

REFERENCE = np.load(Path(__file__).parent / "data" / "vision.npz")

SLICES = SliceConfig()
NAMES = ("pixels", "position_ids", "cells", "mask")


@cache
def vision_stage(size: str = "tiny", seed: int = 0, hidden: int | None = None) -> VisionStage:
    """The stage of `minicpmo checkpoint tiny --seed`; `hidden` replaces the encoder's width."""
    config = ModelConfig.from_json(config_json(size))
    vision = replace(config.vision, hidden=hidden or config.vision.hidden)
    stage = VisionStage(vision, replace(config.resampler, kv_hidden=vision.hidden))
    shapes = {key: tuple(value.shape) for key, value in stage.state_dict().items()}
    weights = {key: torch.from_numpy(tensor(seed, key, shape)) for key, shape in shapes.items()}
    stage.load_state_dict(weights)
    return stage.eval().requires_grad_(False)


def noise(width: int, height: int, seed: int = 3) -> np.ndarray:
    """The picture of this size that the reference saw."""
    return picture(width, height, seed)


def shown(*sizes: tuple[int, int], max_slices: int = 1) -> list[Slice]:
    """The slices of pictures of noise."""
    return [part for size in sizes for part in slices(noise(*size), max_slices, SLICES)]


def tensors(patches: Patches) -> dict[str, Tensor]:
    """A batch as the stage takes it, with a mask even if nothing is padded."""
    mask = np.ones(patches.position_ids.shape, bool) if patches.mask is None else patches.mask
    arrays = (patches.pixels, patches.position_ids, patches.cells, mask)
    return dict(zip(NAMES, map(torch.from_numpy, arrays), strict=True))

"""The audio stage with the weights of a random checkpoint, the reference's outputs, and sounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tiny import config_json, tensor
from minicpmo_ros.parity.inputs import seconds_of, wave

__all__ = ["REFERENCE", "audio_stage", "relative_error", "seconds_of", "wave"]

REFERENCE = np.load(Path(__file__).parent / "data" / "audio.npz")


def audio_stage(size: str = "tiny", seed: int = 0, **changed: int) -> Audio:
    """The stage of `minicpmo checkpoint tiny --seed`; `changed` replaces fields of its config."""
    config = replace(ModelConfig.from_json(config_json(size)).audio, **changed)
    stage = Audio(config).eval().requires_grad_(False)
    shapes = {key: tuple(value.shape) for key, value in stage.state_dict().items()}
    weights = {key: torch.from_numpy(tensor(seed, key, shape)) for key, shape in shapes.items()}
    stage.load_state_dict(weights)
    return stage


def relative_error(found: torch.Tensor | NDArray, expected: torch.Tensor | NDArray) -> float:
    """Largest difference, as a share of the largest expected magnitude."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())

"""The audio stage with the weights of a random checkpoint, the reference's outputs, and sounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.mel import SECOND
from minicpmo_ros.model.tiny import config_json, tensor

REFERENCE = np.load(Path(__file__).parent / "data" / "audio.npz")


def audio_stage(size: str = "tiny", seed: int = 0, **changed: int) -> Audio:
    """The stage of `minicpmo checkpoint tiny --seed`; `changed` replaces fields of its config."""
    config = replace(ModelConfig.from_json(config_json(size)).audio, **changed)
    stage = Audio(config).eval().requires_grad_(False)
    shapes = {key: tuple(value.shape) for key, value in stage.state_dict().items()}
    weights = {key: torch.from_numpy(tensor(seed, key, shape)) for key, shape in shapes.items()}
    stage.load_state_dict(weights)
    return stage


def wave(seconds: float, seed: int) -> NDArray[np.float32]:
    """What the reference heard: two tones, the lower one swelling 1.3 times a second, and noise."""
    t = np.arange(int(16000 * seconds)) / 16000
    low = 0.3 * np.sin(2 * np.pi * 220 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 1.3 * t))
    high = 0.1 * np.sin(2 * np.pi * 1730 * t)
    noise = 0.02 * np.random.RandomState(seed).randn(len(t))
    return (low + high + noise).astype(np.float32)


def seconds_of(sound: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The whole seconds in a sound, one after the other."""
    return list(sound[: len(sound) // SECOND * SECOND].reshape(-1, SECOND))


def relative_error(found: torch.Tensor | NDArray, expected: torch.Tensor | NDArray) -> float:
    """Largest difference, as a share of the largest expected magnitude."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())

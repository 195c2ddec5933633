"""The assets of a vocoder of any size, with random weights: what is timed need not be wise."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch

from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.tiny import write_flow
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.vocoder import Vocoder
from minicpmo_ros.model.hift.weights import PREFIX
from minicpmo_ros.model.vocoder import ASSETS

# Of random weights: most frames are voiced, at pitches of a voice.
PITCH_HZ = 150.0


def write_assets(directory: Path, flow: FlowConfig, hift: HiftConfig) -> Path:
    """flow.pt, flow.yaml and hift.pt, into a checkpoint's directory; the folder of the assets."""
    folder = write_flow(directory / ASSETS, flow)
    with torch.device("meta"):
        state = Vocoder(hift).state_dict()
    tensors = {
        name.removeprefix(PREFIX): torch.from_numpy(_tensor(name, tuple(one.shape)))
        for name, one in state.items()
    }
    torch.save(tensors, folder / "hift.pt")
    return folder


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng([0, zlib.crc32(name.encode())])
    normal = random.standard_normal(shape, dtype=np.float32)
    if name.endswith("alpha"):
        return np.abs(normal) + np.float32(0.5)
    if name.endswith("classifier.bias"):
        return np.full(shape, PITCH_HZ, np.float32)
    if len(shape) == 1:
        return normal * np.float32(0.01)
    return normal / np.float32(np.sqrt(np.prod(shape[1:])))

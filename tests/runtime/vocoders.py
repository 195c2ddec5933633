"""A small vocoder's assets, as they are published."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from minicpmo_ros.model.flow.stream import FlowOptions, FlowStream
from minicpmo_ros.model.flow.tiny import TINY, write_flow
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.history import Array
from minicpmo_ros.model.hift.stream import VocoderStream
from minicpmo_ros.model.vocoder import ASSETS
from minicpmo_ros.runtime.vocoder import VocoderNetworks
from tests.model.flow_network import codes, voice
from tests.model.hift_network import published

HIFT = HiftConfig(mels=TINY.mels, channels=32, f0_channels=24)


def write_assets(directory: Path, seed: int = 1) -> Path:
    """Into a checkpoint's directory, which is given back."""
    assets = write_flow(directory / ASSETS, seed=seed)
    tensors = {name: torch.from_numpy(array) for name, array in published(HIFT).items()}
    torch.save(tensors, assets / "hift.pt")
    return directory


def spoken(
    vocoder: VocoderNetworks, ends: Sequence[int] = (11, 28, 53, 60), steps: int = 3
) -> tuple[Array, Array]:
    """Frames [frames, mels] and samples of a turn, chunk by chunk."""
    flow = FlowStream(vocoder.flow, voice(20), FlowOptions(steps=steps))
    hift = VocoderStream(vocoder.hift, vocoder.hift_config)
    tokens = codes(3, ends[-1])
    frames, samples = [], []
    for start, stop in pairwise((0, *ends)):
        last = stop == ends[-1]
        frames.append(flow.push(tokens[start:stop], last=last))
        samples.append(hift.push(np.ascontiguousarray(frames[-1].T), last=last))
    return np.concatenate(frames), np.concatenate(samples)

"""A small vocoder whose weights follow from their names, and mel frames for it.

The reference computed data/hift.npz on the same weights, frames and noise, so none is stored.
"""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
import torch

from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.history import Array
from minicpmo_ros.model.hift.vocoder import Vocoder
from minicpmo_ros.model.hift.weights import PREFIX, folded

SMALL = HiftConfig(mels=20, channels=32, f0_channels=24)
GAIN, DIRECTION = (f"parametrizations.weight.original{i}" for i in (0, 1))
# Layers whose weights are stored as they are.
PLAIN = ("source_downs.", "m_source.", "f0_predictor.classifier.")


def value(name: str, shape: tuple[int, ...]) -> Array:
    """One tensor of hift.pt: pitches up to 400 Hz, some frames without voice, no loud samples."""
    random = np.random.default_rng([6, zlib.crc32(name.encode())])
    normal = random.standard_normal(shape, dtype=np.float32)
    if name.endswith(("alpha", GAIN)):
        scale = 0.3 if name.startswith("conv_post") else 0.7
        return (scale + 0.1 * normal).astype(np.float32)
    if name == "f0_predictor.classifier.weight":
        return 300 * normal
    if name == "f0_predictor.classifier.bias":
        return 60 + normal
    if name == "conv_post.bias":
        normal[: len(normal) // 2] -= 16
    return normal * np.float32(0.1 if name.endswith("bias") else 0.3)


def published(config: HiftConfig = SMALL) -> dict[str, Array]:
    """The tensors of a hift.pt, by the names they have there, save for the prefix."""
    with torch.device("meta"):
        targets = Vocoder(config).state_dict()
    found = {}
    for name, target in targets.items():
        name, shape = name.removeprefix(PREFIX), tuple(target.shape)
        if name.endswith(".weight") and not name.startswith(PLAIN):
            layer = name.removesuffix("weight")
            found[layer + GAIN] = value(layer + GAIN, (shape[0], 1, 1))
            found[layer + DIRECTION] = value(layer + DIRECTION, shape)
        else:
            found[name] = value(name, shape)
    return found


@cache
def small_vocoder() -> Vocoder:
    tensors = folded({name: torch.from_numpy(array) for name, array in published().items()})
    vocoder = Vocoder(SMALL)
    names = vocoder.state_dict()
    vocoder.load_state_dict({name: tensors[name.removeprefix(PREFIX)] for name in names})
    return vocoder.requires_grad_(False).eval()


def frames(count: int, seed: int = 0) -> Array:
    """Mel frames [mels, count] that change as slowly as those of speech."""
    random = np.random.default_rng([5, seed])
    steps = random.standard_normal((SMALL.mels, count + 6)).astype(np.float32)
    return np.lib.stride_tricks.sliding_window_view(steps, 7, axis=1).mean(axis=2) * np.float32(2)


def noise(first: int, stop: int) -> Array:
    """That which the reference was given; see `minicpmo_ros.model.hift.history.Noise`."""
    shape = SMALL.samples_per_frame, SMALL.harmonics
    each = [
        np.random.default_rng([4, frame]).standard_normal(shape).astype(np.float32)
        for frame in range(first, stop)
    ]
    return np.stack(each)

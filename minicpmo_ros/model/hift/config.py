"""Sizes of the vocoder. The weights tell those that differ; the rest is as published."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from minicpmo_ros.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class HiftConfig:
    """As published for MiniCPM-o 4.5 (HiFTNet as in CosyVoice 2).

    mels: bands of a frame. channels: behind the first convolution; each upsampling halves them.
    f0_channels, f0_layers: of the predictor of the pitch. harmonics: sines of the source, the
    fundamental among them. upsampling: of each stage, with kernels; after the last, a frame of the
    short Fourier transform (n_fft, hop, both in samples) is left for each hop. kernels, dilations:
    of the residual blocks behind each upsampling; source_kernels: of that of the source, one for
    each upsampling. sine, noise: amplitude of a sine, and deviation of the noise in voiced frames;
    a frame is voiced above voiced_hz. limit: no sample is louder.
    """

    mels: int = 80
    channels: int = 512
    f0_channels: int = 512
    f0_layers: int = 5
    harmonics: int = 9
    upsampling: tuple[int, ...] = (8, 5, 3)
    upsampling_kernels: tuple[int, ...] = (16, 11, 7)
    kernels: tuple[int, ...] = (3, 7, 11)
    source_kernels: tuple[int, ...] = (7, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)
    n_fft: int = 16
    hop: int = 4
    rate_hz: int = 24_000
    sine: float = 0.1
    noise: float = 0.003
    voiced_hz: float = 10.0
    slope: float = 0.1
    limit: float = 0.99

    def __post_init__(self) -> None:
        stages = len(self.upsampling)
        if min(self.mels, self.channels, self.f0_channels, self.f0_layers, self.harmonics) < 1:
            raise CheckpointError(f"the vocoder has a size below 1: {self}")
        if self.channels % 2**stages:
            raise CheckpointError(
                f"the vocoder has {self.channels} channels, which {stages} stages cannot halve"
            )

    @property
    def samples_per_frame(self) -> int:
        """480 as published: 50 frames are a second."""
        return math.prod(self.upsampling) * self.hop

    @property
    def f0_reach(self) -> int:
        """Frames on each side that the pitch of a frame depends on: one for each layer."""
        return self.f0_layers

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> HiftConfig:
        """Of weights, by the names they have in hift.pt (`weight` where a norm is folded).

        Raises:
            CheckpointError: a tensor that tells a size is missing or of another rank.
        """
        channels, mels, _ = _shape(shapes, "conv_pre.weight", 3)
        f0_channels, _, _ = _shape(shapes, "f0_predictor.condnet.0.weight", 3)
        _, harmonics = _shape(shapes, "m_source.l_linear.weight", 2)
        return cls(mels=mels, channels=channels, f0_channels=f0_channels, harmonics=harmonics)


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    found = shapes.get(name)
    if found is None:
        raise CheckpointError(f"these are not the weights of a HiFT vocoder: {name} is missing")
    if len(found) != rank:
        raise CheckpointError(
            f"these are not the weights of a HiFT vocoder: {name} is {list(found)}, not of {rank}"
            " dimensions"
        )
    return found

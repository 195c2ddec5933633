"""Mel frames and a source to samples: upsampled step by step, the source added at each.

HiFTNet (Li et al. 2023, arXiv 2309.09493). What comes out of the last stage are a magnitude and a
phase for each bin of a short Fourier transform, of which the inverse makes samples.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.model.hift.blocks import ResidualBlock
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.fourier import Fourier, InverseFourier

# Louder bins are cut: e^x of an odd input would be heard as a bang.
LOUDEST = 100.0
# The last leaky rectifier has torch's slope, whatever that of the others.
LAST_SLOPE = 0.01


class Generator(nn.Module):
    """Parameter names are those of hift.pt."""

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.n_fft + 2
        widths = [config.channels // 2**i for i in range(len(config.upsampling) + 1)]
        self.conv_pre = nn.Conv1d(config.mels, config.channels, 7, padding=3)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(inputs, outputs, kernel, rate, padding=(kernel - rate) // 2)
            for (inputs, outputs), kernel, rate in zip(
                itertools.pairwise(widths),
                config.upsampling_kernels,
                config.upsampling,
                strict=True,
            )
        )
        # How much finer the source's transform is than each stage.
        rates = [math.prod(config.upsampling[i + 1 :]) for i in range(len(config.upsampling))]
        self.source_downs = nn.ModuleList(
            nn.Conv1d(bins, width, 2 * rate, rate, padding=rate // 2)
            if rate > 1
            else nn.Conv1d(bins, width, 1)
            for width, rate in zip(widths[1:], rates, strict=True)
        )
        self.source_resblocks = nn.ModuleList(
            ResidualBlock(width, kernel, config.dilations)
            for width, kernel in zip(widths[1:], config.source_kernels, strict=True)
        )
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, kernel, config.dilations)
            for width in widths[1:]
            for kernel in config.kernels
        )
        self.conv_post = nn.Conv1d(widths[-1], bins, 7, padding=3)
        self.fourier = Fourier(config.n_fft, config.hop)
        self.inverse = InverseFourier(config.n_fft, config.hop)

    def forward(self, mel: Tensor, source: Tensor) -> Tensor:
        """mel [mels, frames], source [samples] -> [samples], in -limit..limit;
        samples = frames * samples_per_frame."""
        config = self.config
        spectrum = self.fourier(source[None])
        x = self.conv_pre(mel[None])
        blocks = len(config.kernels)
        for stage, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, config.slope))
            if stage == len(self.ups) - 1:
                # One more at the front, the second one's mirror image: as many as the source has.
                x = torch.cat((x[:, :, 1:2], x), dim=2)
            x = x + self.source_resblocks[stage](self.source_downs[stage](spectrum))
            first = stage * blocks
            total = self.resblocks[first](x)
            for block in self.resblocks[first + 1 : first + blocks]:
                total = total + block(x)
            x = total / blocks
        x = self.conv_post(F.leaky_relu(x, LAST_SLOPE))
        bins = config.n_fft // 2 + 1
        magnitude = x[:, :bins].exp().clamp(max=LOUDEST)
        phase = x[:, bins:].sin()
        parts = torch.cat((magnitude * phase.cos(), magnitude * phase.sin()), dim=1)
        return self.inverse(parts)[0].clamp(-config.limit, config.limit)

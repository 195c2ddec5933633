"""The short Fourier transform and its inverse as convolutions: no graph has complex numbers.

Hann window, frames centred on every `hop`-th sample, the signal mirrored at its ends.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def _hann(n_fft: int) -> Tensor:
    places = torch.arange(n_fft, dtype=torch.float64, device="cpu")
    return 0.5 - 0.5 * torch.cos(2 * math.pi * places / n_fft)


def _angles(n_fft: int) -> Tensor:
    """[n_fft / 2 + 1, n_fft]"""
    places = torch.arange(n_fft, dtype=torch.float64, device="cpu")
    return 2 * math.pi * torch.outer(places[: n_fft // 2 + 1], places) / n_fft


class Fourier(nn.Module):
    """A signal to real and imaginary parts, one below the other."""

    basis: Tensor

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        angles = _angles(n_fft)
        basis = torch.cat((angles.cos(), -angles.sin())) * _hann(n_fft)
        self.register_buffer("basis", basis[:, None].to(torch.float32), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """[1, samples] -> [1, n_fft + 2, samples / hop + 1]."""
        half = self.n_fft // 2
        mirrored = F.pad(signal[:, None], (half, half), mode="reflect")
        return F.conv1d(mirrored, self.basis, stride=self.hop)


class InverseFourier(nn.Module):
    """Real and imaginary parts to a signal: frames are windowed, overlapped and added."""

    basis: Tensor
    power: Tensor

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        angles, window = _angles(n_fft), _hann(n_fft)
        # All but the first and the last bin stand for their mirror images, too.
        weights = torch.full((n_fft // 2 + 1, 1), 2.0 / n_fft, dtype=torch.float64, device="cpu")
        weights[0] = weights[-1] = 1.0 / n_fft
        imaginary = -weights * angles.sin()
        # Their imaginary parts have no place in a real signal.
        imaginary[0] = imaginary[-1] = 0.0
        basis = torch.cat((weights * angles.cos(), imaginary)) * window
        power = (window**2)[None, None]
        self.register_buffer("basis", basis[:, None].to(torch.float32), persistent=False)
        self.register_buffer("power", power.to(torch.float32), persistent=False)

    def forward(self, parts: Tensor) -> Tensor:
        """[1, n_fft + 2, frames] -> [1, (frames - 1) * hop]."""
        half = self.n_fft // 2
        added = F.conv_transpose1d(parts, self.basis, stride=self.hop)
        counted = F.conv_transpose1d(torch.ones_like(parts[:, :1]), self.power, stride=self.hop)
        return (added[:, 0, half:-half]) / counted[:, 0, half:-half]

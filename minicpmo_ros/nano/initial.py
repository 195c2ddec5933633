"""Weights before the first step."""

from __future__ import annotations

import math

import torch
from torch import nn

from minicpmo_ros.nano.teaching import Nano

_TABLES = ("embed_tokens", "lm_head", "position_embedding", "resampler.query")
_OUT = ("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight")


@torch.no_grad()
def initialise(nano: Nano) -> None:
    """Matrices normal with deviation 0.02, or by their inputs; what writes into the residual stream
    smaller with depth; Whisper's sinusoids as positions of sound."""
    for name, one in nano.named_parameters():
        if any(table in name for table in _TABLES):
            one.normal_(0, 0.02)
        elif one.ndim > 1:
            one.normal_(0, one[0].numel() ** -0.5)
            if name.endswith(_OUT):
                one.mul_(0.35)
        elif "norm" in name or ".ln_" in name:
            one.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            one.zero_()
    nano.llm.model.embed_tokens.weight.normal_(0, 0.3)
    table = nano.apm.embed_positions.weight
    table.copy_(sinusoids(*table.shape) * 0.3)


def sinusoids(length: int, channels: int) -> torch.Tensor:
    """[length, channels]: sines and cosines, of wavelengths from 2 pi to 10000 times that."""
    half = channels // 2
    rates = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    angles = torch.arange(length)[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def count(module: nn.Module) -> int:
    """Parameters."""
    return sum(one.numel() for one in module.parameters())

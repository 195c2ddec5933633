"""Weights before the first step."""

from __future__ import annotations

import math

import torch

from minicpmo_ros.nano.teaching import Nano

_TABLES = ("embed_tokens", "lm_head", "resampler.query")
_OUT = ("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight")


@torch.no_grad()
def initialise(nano: Nano) -> None:
    """Matrices normal with deviation 0.02, or by their inputs; what writes into the residual stream
    smaller with depth; sinusoids as positions of sound, as Whisper has them, and of patches."""
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
    # Patches that do not know their place cannot be put together: small random vectors in place of
    # these cost tens of thousands of pictures before a form was seen.
    places = nano.vpm.embeddings.position_embedding.weight
    places.copy_(grid(math.isqrt(len(places)), places.shape[1]) * 0.5)


def sinusoids(length: int, channels: int) -> torch.Tensor:
    """[length, channels]: sines and cosines, of wavelengths from 2 pi to 10000 times that."""
    half = channels // 2
    rates = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    angles = torch.arange(length)[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid(side: int, channels: int) -> torch.Tensor:
    """[side * side, channels] for rows of places: half of the channels tell the row, half the
    column, as `sinusoids` whose longest wave is a few times the side."""
    half = channels // 2
    rates = 2 * math.pi / side * 2.0 ** torch.linspace(-2, 3, half // 2)
    angles = torch.arange(side)[:, None] * rates[None]
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = line[:, None].expand(side, side, half)
    columns = line[None].expand(side, side, half)
    return torch.cat([rows, columns], dim=2).reshape(side * side, channels)

"""Residual blocks of dilated convolutions, with snakes between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha: Liu et al. (2020), arXiv 2006.08195."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[1, channels, time] -> the same."""
        alpha = self.alpha[:, None]
        return x + (x * alpha).sin().square() / (alpha + 1e-9)


class ResidualBlock(nn.Module):
    """Pairs of convolutions, a dilated one and a plain one, each added to what it was given."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1, self.convs2 = (
            nn.ModuleList(
                nn.Conv1d(channels, channels, kernel, dilation=d, padding=(kernel - 1) * d // 2)
                for d in gaps
            )
            for gaps in (dilations, [1] * len(dilations))
        )
        self.activations1, self.activations2 = (
            nn.ModuleList(Snake(channels) for _ in dilations) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[1, channels, time] -> the same."""
        pairs = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for first_snake, dilated, second_snake, plain in pairs:
            x = x + plain(second_snake(dilated(first_snake(x))))
        return x

"""From the patches of a picture, however many, to 64 embeddings as wide as the language model."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.model.attention import attend
from minicpmo_ros.model.part_configs import ResamplerConfig


class CrossAttention(nn.Module):
    """Multi-head attention; the weights of query, key and value lie on one another."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.hidden, config.hidden))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * config.hidden))
        self.out_proj = nn.Linear(config.hidden, config.hidden)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """q: [B, Q, hidden]; k, v: [B, P, hidden]; mask: bool [B, 1, 1, P], true where seen."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((q, k, v), weights, biases, strict=True)
        )
        return self.out_proj(attend(q, k, v, mask).transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """Learned queries attend to the patches, whose keys know their row and column."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(config.queries, config.hidden))
        # Features that are as wide as the embeddings go in as they are, and no weight is stored.
        self.kv_proj: nn.Module = nn.Identity()
        if config.kv_hidden != config.hidden:
            self.kv_proj = nn.Linear(config.kv_hidden, config.hidden, bias=False)
        self.ln_q = nn.LayerNorm(config.hidden, eps=1e-6)
        self.ln_kv = nn.LayerNorm(config.hidden, eps=1e-6)
        self.attn = CrossAttention(config)
        self.ln_post = nn.LayerNorm(config.hidden, eps=1e-6)
        self.proj = nn.Parameter(torch.zeros(config.hidden, config.hidden))
        self.hidden = config.hidden

    def positions(self, cells: Tensor) -> Tensor:
        """[B, P, 2] -> float32 [B, P, hidden] in four quarters: sin and cos of the column, sin and
        cos of the row, whose angles fall from 1 to 1/10000 a cell (Vaswani et al., 2017)."""
        quarter = self.hidden // 4
        i = torch.arange(quarter, dtype=torch.float32, device=cells.device) / quarter
        angles = cells[..., None] * 10000**-i
        return torch.cat([angles.sin(), angles.cos()], -1).flatten(2)

    def forward(self, features: Tensor, cells: Tensor, mask: Tensor | None = None) -> Tensor:
        """Features to embeddings.

        Args:
            features: [B, P, kv_hidden].
            cells: int64 [B, P, 2], each patch's column and row, from 0.
            mask: bool [B, P], false at padding; None if there is none.

        Returns:
            [B, queries, hidden].
        """
        x = self.ln_kv(self.kv_proj(features))
        q = self.ln_q(self.query).expand(x.shape[0], -1, -1)
        k = x + self.positions(cells).to(x.dtype)
        x = self.attn(q, k, x, None if mask is None else mask[:, None, None])
        return self.ln_post(x) @ self.proj

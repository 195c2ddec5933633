"""Attention by content and by distance (Dai et al. 2019, Transformer-XL, section 3.3).

Distance is a query's position less a key's, so it is negative for what comes later. The key rows of
a cache lie right before the new ones, and the last new row is the last position of all.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def sinusoids(radius: int, channels: int, device: torch.device | str = "cpu") -> Tensor:
    """Distances from `radius` - 1 down to 1 - `radius`: float32 [2 radius - 1, channels], sines in
    even and cosines in odd channels, the wavelengths growing from 2 pi to 20000 pi."""
    distance = torch.arange(radius - 1, -radius, -1, dtype=torch.float32, device=device)
    channel = torch.arange(0, channels, 2, dtype=torch.float32, device=device)
    angle = distance[:, None] * torch.exp(channel * -(math.log(10000.0) / channels))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


def window(table: Tensor, past: int, new: int) -> Tensor:
    """Of a table of distances [..., 2 radius - 1, channels] what `new` queries need that see
    themselves and `past` rows before: [..., past + 2 new - 1, channels]."""
    centre = table.shape[-2] // 2
    return table[..., centre - (past + new - 1) : centre + new, :]


def shifted(x: Tensor, keys: int) -> Tensor:
    """From scores by distance to scores by key.

    Args:
        x: [heads, T, keys + T - 1], column c for distance keys - 1 - c.

    Returns:
        [heads, T, keys]: key j of query i, which is row keys - T + i of all, at column
        j + T - 1 - i of x. A row of padding makes that a view: each row starts one place later.
    """
    heads, queries, columns = x.shape
    x = F.pad(x, (1, 0)).reshape(heads, columns + 1, queries)
    return x[:, 1:].reshape(heads, queries, columns)[:, :, :keys]


def soft(scores: Tensor, seen: Tensor | None) -> Tensor:
    """Softmax in single precision over what is seen: bool, broadcastable to the scores."""
    scores = scores.to(torch.float32)
    if seen is not None:
        scores = scores.masked_fill(~seen, torch.finfo(torch.float32).min)
    return scores.softmax(-1)


class RelativeAttention(nn.Module):
    """Multi-head attention of new rows to themselves and to a cache."""

    def __init__(self, hidden: int, heads: int, key_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(hidden, hidden)
        self.linear_k = nn.Linear(hidden, hidden, bias=key_bias)
        self.linear_v = nn.Linear(hidden, hidden)
        self.linear_out = nn.Linear(hidden, hidden)
        self.linear_pos = nn.Linear(hidden, hidden, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, hidden // heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, hidden // heads))

    def split(self, x: Tensor) -> Tensor:
        """[T, hidden] to [heads, T, head_dim]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(0, 1)

    def distances(self, table: Tensor) -> Tensor:
        """`sinusoids` as keys of this layer: [heads, rows, head_dim]."""
        return self.split(self.linear_pos(table.to(self.linear_pos.weight.dtype)))

    def forward(
        self, x: Tensor, distances: Tensor, k: Tensor, v: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Conformer.forward`.

        Args:
            x: [T, hidden].
            distances: [heads, S + 2 T - 1, head_dim], a `window` of the layer's `distances`.
            k, v: the cache, [heads, S, head_dim].
            seen: bool [T, S + T], true where a row sees another; None: all see all.

        Returns:
            [T, hidden], and the keys and values of x, [heads, T, head_dim] each.
        """
        q, own_k, own_v = (
            self.split(part(x)) for part in (self.linear_q, self.linear_k, self.linear_v)
        )
        k, v = torch.cat((k, own_k), dim=1), torch.cat((v, own_v), dim=1)
        by_content = (q + self.pos_bias_u[:, None]) @ k.transpose(1, 2)
        by_distance = (q + self.pos_bias_v[:, None]) @ distances.transpose(1, 2)
        scores = by_content + shifted(by_distance, k.shape[1])
        weights = soft(scores / math.sqrt(q.shape[-1]), seen).to(v.dtype)
        return self.linear_out((weights @ v).transpose(0, 1).flatten(1)), own_k, own_v

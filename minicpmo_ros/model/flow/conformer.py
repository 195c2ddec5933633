"""The encoder of speech tokens: 25 a second in, 50 frames a second out, in chunks with a past.

Within a chunk all rows see each other, and all rows of the past that are still cached. Two causal
convolutions hand on their last inputs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.model.flow.config import ConformerConfig
from minicpmo_ros.model.flow.relative import RelativeAttention, sinusoids


class FeedForward(nn.Module):
    def __init__(self, hidden: int, ffn: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(hidden, ffn)
        self.w_2 = nn.Linear(ffn, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(F.silu(self.w_1(x)))


class ConformerLayer(nn.Module):
    """A pre-norm transformer layer; the published conformer has no convolutions in its layers."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(config.hidden, config.heads, config.key_bias)
        self.feed_forward = FeedForward(config.hidden, config.ffn)
        self.norm_mha = nn.LayerNorm(config.hidden, eps=1e-12)
        self.norm_ff = nn.LayerNorm(config.hidden, eps=1e-12)

    def forward(
        self, x: Tensor, distances: Tensor, k: Tensor, v: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `RelativeAttention.forward`."""
        attended, own_k, own_v = self.self_attn(self.norm_mha(x), distances, k, v, seen)
        x = x + attended
        return x + self.feed_forward(self.norm_ff(x)), own_k, own_v


class InputProjection(nn.Module):
    """Into the width of the layers, scaled up as where positions are added to it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.scale = math.sqrt(hidden)
        self.out = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden, eps=1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) * self.scale


class LookAhead(nn.Module):
    """A convolution over a token and those that follow it, then a causal one; added to it."""

    kernel = 3

    def __init__(self, hidden: int, look_ahead: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(hidden, hidden, look_ahead + 1)
        self.conv2 = nn.Conv1d(hidden, hidden, self.kernel)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """x: [T + look_ahead, hidden], before: [hidden, 2]. Returns [T, hidden], and what is
        `before` the next."""
        ahead = F.leaky_relu(self.conv1(x.transpose(0, 1)[None])[0])
        ahead = torch.cat((before, ahead), dim=1)
        found = self.conv2(ahead[None])[0].transpose(0, 1)
        return found + x[: found.shape[0]], ahead[:, 1 - self.kernel :]


class Upsample(nn.Module):
    """Each row `up` times, and a causal convolution over them."""

    def __init__(self, hidden: int, up: int) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv1d(hidden, hidden, 2 * up + 1)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """x: [T, hidden], before: [hidden, 2 up]. Returns [up T, hidden], and what is `before` the
        next."""
        x = torch.cat((before, x.repeat_interleave(self.up, dim=0).transpose(0, 1)), dim=1)
        return self.conv(x[None])[0].transpose(0, 1), x[:, -2 * self.up :]


class Conformer(nn.Module):
    """Embeddings of tokens to states of frames."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = InputProjection(config.hidden)
        self.pre_lookahead_layer = LookAhead(config.hidden, config.look_ahead)
        self.encoders = nn.ModuleList(ConformerLayer(config) for _ in range(config.layers))
        self.up_layer = Upsample(config.hidden, config.up)
        self.up_embed = InputProjection(config.hidden)
        self.up_encoders = nn.ModuleList(ConformerLayer(config) for _ in range(config.up_layers))
        self.after_norm = nn.LayerNorm(config.hidden, eps=1e-5)

    def distances(self, radius: int) -> tuple[Tensor, Tensor]:
        """Tables for pasts and chunks of up to `radius` tokens together: of the layers at the rate
        of tokens [layers, heads, 2 radius - 1, head_dim], and at that of frames [up_layers, heads,
        2 up radius - 1, head_dim]."""
        return (
            _distances(self.encoders, radius, self.config.hidden),
            _distances(self.up_encoders, self.config.up * radius, self.config.hidden),
        )

    def forward(
        self,
        x: Tensor,
        known: Tensor,
        before: Tensor,
        up_before: Tensor,
        distances: Tensor,
        up_distances: Tensor,
        k: Tensor,
        v: Tensor,
        up_k: Tensor,
        up_v: Tensor,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """T tokens, with those that follow them; see `TokenEncoder.forward`, x being embeddings
        [T + look_ahead, hidden] here, and the first result [up T, hidden]."""
        x = self.embed(x)
        x = x * known[:, None].to(x.dtype)
        x, before = self.pre_lookahead_layer(x, before)
        x, own_k, own_v = _through(self.encoders, x, distances, k, v, seen)
        x, up_before = self.up_layer(x, up_before)
        if seen is not None:
            up = self.config.up
            seen = seen.repeat_interleave(up, dim=0).repeat_interleave(up, dim=1)
        x = self.up_embed(x)
        x, own_up_k, own_up_v = _through(self.up_encoders, x, up_distances, up_k, up_v, seen)
        return self.after_norm(x), before, up_before, own_k, own_v, own_up_k, own_up_v


def _distances(layers: nn.ModuleList, radius: int, channels: int) -> Tensor:
    tables = []
    for layer in layers:
        assert isinstance(layer, ConformerLayer)
        table = sinusoids(radius, channels, layer.norm_mha.weight.device)
        tables.append(layer.self_attn.distances(table))
    return torch.stack(tables)


def _through(
    layers: nn.ModuleList,
    x: Tensor,
    distances: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    keys, values = [], []
    for index, layer in enumerate(layers):
        x, own_k, own_v = layer(x, distances[index], k[index], v[index], seen)
        keys.append(own_k)
        values.append(own_v)
    return x, torch.stack(keys), torch.stack(values)

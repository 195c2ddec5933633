"""The diffusion transformer: a velocity for every frame, from noise, time and condition.

Two rows of a batch go through together, one conditioned and one not; each has its own past. A layer
attends, convolves and feeds forward, each shifted, scaled and gated by the time (adaLN-Zero,
Peebles and Xie 2023). Time is the same for all frames and in all chunks, so what it does to the
layers, `Modulation`, is computed once for every step of the solver.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.model.flow.config import EstimatorConfig, FlowConfig
from minicpmo_ros.model.flow.relative import soft

# Shift, scale and gate of attention, feed-forward and convolution, in this order.
MODULATIONS = 9
NORM_EPS = 1e-6


class FrameAttention(nn.Module):
    """Multi-head attention with normed queries and keys. It knows no positions."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.heads = config.heads
        width = config.heads * config.head_dim
        self.to_q = nn.Linear(config.hidden, width)
        self.to_k = nn.Linear(config.hidden, width)
        self.to_v = nn.Linear(config.hidden, width)
        self.q_norm = nn.LayerNorm(config.head_dim)
        self.k_norm = nn.LayerNorm(config.head_dim)
        self.proj = nn.Linear(width, config.hidden)

    def split(self, x: Tensor) -> Tensor:
        """[2, T, width] to [2, heads, T, head_dim]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, x: Tensor, k: Tensor, v: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x: [2, T, hidden]; k, v: [2, heads, S, head_dim]; seen: bool [T, S + T] or None.

        Past and new keys are two products under one softmax, so that no key is copied.
        """
        q = self.q_norm(self.split(self.to_q(x))) / math.sqrt(self.q_norm.normalized_shape[0])
        own_k = self.k_norm(self.split(self.to_k(x)))
        own_v = self.split(self.to_v(x))
        scores = torch.cat((q @ k.transpose(2, 3), q @ own_k.transpose(2, 3)), dim=-1)
        weights = soft(scores, seen).to(v.dtype)
        past = k.shape[2]
        x = weights[..., :past] @ v + weights[..., past:] @ own_v
        return self.proj(x.transpose(1, 2).flatten(2)), own_k, own_v


class CausalConvolutions(nn.Module):
    """Two convolutions over a frame and those before it, a norm and Mish between them."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.hidden = config.hidden
        conv1, conv2 = (nn.Conv1d(config.hidden, config.hidden, config.kernel) for _ in range(2))
        # Numbers, because the names in a checkpoint count operations without weights, too.
        self.block = nn.ModuleDict({"1": conv1, "3": nn.LayerNorm(config.hidden), "6": conv2})

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """x: [2, T, hidden]; before: [2, 2 hidden, kernel - 1], inputs of both."""
        x, before1 = _convolved(self.block["1"], x, before[:, : self.hidden])
        x = F.mish(self.block["3"](x))
        x, before2 = _convolved(self.block["6"], x, before[:, self.hidden :])
        return x, torch.cat((before1, before2), dim=1)


class Mlp(nn.Module):
    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, config.ffn)
        self.fc2 = nn.Linear(config.ffn, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class EstimatorLayer(nn.Module):
    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.attn = FrameAttention(config)
        self.conv = CausalConvolutions(config)
        self.mlp = Mlp(config)
        self.adaLN_modulation = _modulation(config.hidden, MODULATIONS)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        before: Tensor,
        k: Tensor,
        v: Tensor,
        seen: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x: [2, T, hidden]; modulation: [9, hidden]; the rest as in both parts."""
        attended, own_k, own_v = self.attn(_normed(x, modulation[0], modulation[1]), k, v, seen)
        x = x + modulation[2] * attended
        convolved, before = self.conv(_normed(x, modulation[6], modulation[7]), before)
        x = x + modulation[8] * convolved
        x = x + modulation[5] * self.mlp(_normed(x, modulation[3], modulation[4]))
        return x, before, own_k, own_v


class TimeEmbedding(nn.Module):
    """Times in [0, 1], as sinusoids of a thousand of them, through two linear layers."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.channels = config.time_channels
        self.mlp = nn.Sequential(
            nn.Linear(self.channels, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
        )

    def forward(self, times: Tensor) -> Tensor:
        """float32 [N] -> [N, hidden]."""
        half = self.channels // 2
        place = torch.arange(half, dtype=torch.float32, device=times.device)
        angle = 1000.0 * times[:, None] * torch.exp(-math.log(10000.0) / half * place)
        waves = torch.cat((angle.cos(), angle.sin()), dim=-1)
        first = self.mlp[0]
        assert isinstance(first, nn.Linear)
        return self.mlp(waves.to(first.weight.dtype))


class FinalLayer(nn.Module):
    def __init__(self, hidden: int, mels: int) -> None:
        super().__init__()
        self.adaLN_modulation = _modulation(hidden, 2)
        self.linear = nn.Linear(hidden, mels)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x: [2, T, hidden]; modulation: [2, hidden]. Returns [2, T, mels]."""
        return self.linear(_normed(x, modulation[0], modulation[1]))


class Estimator(nn.Module):
    """See `forward`, and `modulation` for what must have been computed before."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        sizes = config.estimator
        self.mels = config.mels
        self.t_embedder = TimeEmbedding(sizes)
        self.in_proj = nn.Linear(4 * config.mels, sizes.hidden)
        self.blocks = nn.ModuleList(EstimatorLayer(sizes) for _ in range(sizes.layers))
        self.final_layer = FinalLayer(sizes.hidden, config.mels)

    def modulation(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """What times float32 [N], in [0, 1], do: to the layers [N, layers, 9, hidden], and to the
        last [N, 2, hidden]."""
        time = self.t_embedder(times)
        layers = []
        for layer in self.blocks:
            assert isinstance(layer, EstimatorLayer)
            layers.append(layer.adaLN_modulation(time))
        whole = torch.stack(layers, dim=1).unflatten(-1, (MODULATIONS, -1))
        return whole, self.final_layer.adaLN_modulation(time).unflatten(-1, (2, -1))

    def forward(
        self,
        x: Tensor,
        mean: Tensor,
        voice: Tensor,
        known: Tensor,
        modulation: Tensor,
        last_modulation: Tensor,
        before: Tensor,
        k: Tensor,
        v: Tensor,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Velocities of T frames at one time.

        Args:
            x: [T, mels], on the way from noise to sound.
            mean: [T, mels], of the token encoder.
            voice: [mels], of the voice projection.
            known: [T, mels], frames that are given: those of the prompt, zeros elsewhere.
            modulation, last_modulation: of this time, [layers, 9, hidden] and [2, hidden].
            before: [layers, 2, 2 hidden, kernel - 1], inputs of convolutions before these frames,
                zeros at first.
            k, v: the cache, [layers, 2, heads, S, head_dim], in any order.
            seen: bool [T, S + T], true where a frame sees another; None: all see all.

        Returns:
            Velocities [2, T, mels], with the condition and without; before of the next frames; k
            and v of these, [layers, 2, heads, T, head_dim].
        """
        dtype = self.in_proj.weight.dtype
        condition = torch.cat((mean, voice.expand_as(mean), known), dim=-1).to(dtype)
        x = torch.stack((x, x)).to(dtype)
        condition = torch.stack((condition, torch.zeros_like(condition)))
        x = self.in_proj(torch.cat((x, condition), dim=-1))
        parts = []
        for index, layer in enumerate(self.blocks):
            x, *own = layer(x, modulation[index], before[index], k[index], v[index], seen)
            parts.append(own)
        before, own_k, own_v = (torch.stack(part) for part in zip(*parts, strict=True))
        return self.final_layer(x, last_modulation), before, own_k, own_v


def _modulation(hidden: int, parts: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(hidden, parts * hidden))


def _normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS) * (1 + scale) + shift


def _convolved(conv: nn.Module, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    x = torch.cat((before, x.transpose(1, 2)), dim=2)
    return conv(x).transpose(1, 2), x[:, :, x.shape[2] - before.shape[2] :]

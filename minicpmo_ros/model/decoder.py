"""The transformer of the language model (Qwen3) and of the speech decoder (Llama).

Pre-norm layers of grouped-query attention and a gated MLP (SwiGLU), RMS norms, no biases. Qwen3
also norms each query and key head before the rotation. There is no batch: a robot has one
conversation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.model.kv import KvCache
from minicpmo_ros.model.part_configs import LlmConfig, SpeechConfig
from minicpmo_ros.model.rope import angles, rotate

# A long prompt goes through in blocks, so that scores and the MLP's inner values stay small.
PREFILL_BLOCK = 512


def head_norm(config: LlmConfig | SpeechConfig, norm_heads: bool) -> nn.Module:
    """What each query, or key, goes through before it is rotated."""
    return nn.RMSNorm(config.head_dim, config.norm_eps) if norm_heads else nn.Identity()


class Attention(nn.Module):
    """Causal attention over a KV cache that the caller owns."""

    def __init__(self, config: LlmConfig | SpeechConfig, norm_heads: bool) -> None:
        super().__init__()
        self.kv_heads, self.head_dim = config.kv_heads, config.head_dim
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden, bias=False)
        self.q_norm, self.k_norm = (head_norm(config, norm_heads) for _ in "qk")

    def forward(
        self,
        x: Tensor,
        rows: Tensor,
        cos: Tensor,
        sin: Tensor,
        bias: Tensor | None,
        k: Tensor,
        v: Tensor,
    ) -> Tensor:
        """x [T, hidden], k and v [kv_heads, S, head_dim]; writes rows [T] of k and v."""
        tokens = x.shape[0]
        # [heads, T, head_dim]
        q = self.q_norm(self.q_proj(x).view(tokens, -1, self.head_dim)).transpose(0, 1)
        key = self.k_norm(self.k_proj(x).view(tokens, -1, self.head_dim)).transpose(0, 1)
        value = self.v_proj(x).view(tokens, -1, self.head_dim).transpose(0, 1)
        k.index_copy_(1, rows, rotate(key, cos, sin))
        v.index_copy_(1, rows, value)
        # Query heads that share a key head stand one after the other as more rows of queries, so
        # that each key is read once, not once a head.
        q = rotate(q, cos, sin).reshape(self.kv_heads, 1, -1, self.head_dim)
        out = F.scaled_dot_product_attention(q, k.unsqueeze(1), v.unsqueeze(1), attn_mask=bias)
        out = out.view(-1, tokens, self.head_dim).transpose(0, 1).reshape(tokens, -1)
        return self.o_proj(out)


class Mlp(nn.Module):
    def __init__(self, config: LlmConfig | SpeechConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: LlmConfig | SpeechConfig, norm_heads: bool) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.self_attn = Attention(config, norm_heads)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden, config.norm_eps)
        self.mlp = Mlp(config)

    def forward(
        self,
        x: Tensor,
        rows: Tensor,
        cos: Tensor,
        sin: Tensor,
        bias: Tensor | None,
        k: Tensor,
        v: Tensor,
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rows, cos, sin, bias, k, v)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Layers and final norm; what goes in are embeddings, what comes out are hidden states."""

    def __init__(self, config: LlmConfig | SpeechConfig, norm_heads: bool) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config, norm_heads) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden, config.norm_eps)

    def forward(
        self, embeds: Tensor, positions: Tensor, mask: Tensor | None, k: Tensor, v: Tensor
    ) -> Tensor:
        """Read T embeddings: prefill and decode alike.

        Args:
            embeds: [T, hidden].
            positions: [T] int64. They are also the rows of k and v that are written, in place.
            mask: [T, S] bool, true where a token may look; None where each may look at all S rows.
            k, v: [layers, kv_heads, S, head_dim]: a whole cache, or the rows of it that matter.

        Returns:
            [T, hidden], after the final norm.
        """
        angle = angles(positions, self.config.head_dim, self.config.rope_theta)
        cos, sin = angle.cos(), angle.sin()
        bias = None
        if mask is not None:
            bias = torch.zeros_like(mask, dtype=embeds.dtype).masked_fill(~mask, -torch.inf)
            bias = bias.repeat(self.config.heads // self.config.kv_heads, 1)
        x = embeds
        for index, layer in enumerate(self.layers):
            x = layer(x, positions, cos, sin, bias, k[index], v[index])
        return self.norm(x)

    def cache(self, capacity: int) -> KvCache:
        """An empty cache for `capacity` tokens, in the dtype and on the device of the weights."""
        c, weight = self.config, self.norm.weight
        return KvCache(
            c.layers, c.kv_heads, capacity, c.head_dim, c.rope_theta, weight.dtype, weight.device
        )

    @torch.inference_mode()
    def extend(self, embeds: Tensor, cache: KvCache, at: int | None = None) -> Tensor:
        """Read embeddings into a cache, behind what it holds.

        Args:
            embeds: [T, hidden].
            cache: grows by T rows.
            at: write rows [at, at + T) instead and look at nothing behind them (see
                `KvCache.shift`).

        Returns:
            Hidden states [T, hidden], after the final norm.

        Raises:
            KvFullError: T rows do not fit; nothing was written.
        """
        at = cache.start(len(embeds), at)
        hidden = []
        for block in embeds.split(PREFILL_BLOCK):
            stop = at + len(block)
            positions = torch.arange(at, stop, device=embeds.device)
            mask = None
            if len(block) > 1:
                mask = torch.arange(stop, device=embeds.device) <= positions.unsqueeze(1)
            hidden.append(self(block, positions, mask, cache.k[:, :, :stop], cache.v[:, :, :stop]))
            cache.length = max(cache.length, stop)
            at = stop
        return torch.cat(hidden) if len(hidden) > 1 else hidden[0]

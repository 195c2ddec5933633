"""The stages as graphs: plain tensors in, plain tensors out, nothing written in place.

A decoder's cache stays with the caller: for each layer a buffer [kv_heads, rows, head_dim] of keys
and one of values. A graph reads them as they are and gives back the rows of the tokens that it was
given, which the caller writes into its buffers. So no key is copied for a token: attention to the
past and to the tokens themselves are two products under one softmax.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from minicpmo_ros.model.config import LlmConfig, SpeechConfig
from minicpmo_ros.model.decoder import Attention, Decoder, Layer
from minicpmo_ros.model.rope import angles, rotate
from minicpmo_ros.runtime.export import Plan


class DecoderStep(nn.Module):
    """Some tokens through a decoder, behind what its caches hold."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self, embeds: Tensor, past: Tensor, caches: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """See the module's first lines.

        Args:
            embeds: [T, hidden].
            past: int64 [1], rows of the caches that hold something.
            caches: k and v of each layer in turn: [kv_heads, capacity, head_dim].

        Returns:
            Hidden states [T, hidden] after the final norm; k and v of each layer in turn for
            the T tokens: [kv_heads, T, head_dim].
        """
        config = self.decoder.config
        tokens = embeds.shape[0]
        own = torch.arange(tokens, device=embeds.device)
        angle = angles(own + past, config.head_dim, config.rope_theta)
        cos, sin = angle.cos(), angle.sin()
        capacity = caches[0].shape[1]
        groups = config.heads // config.kv_heads
        seen = torch.arange(capacity, device=embeds.device) < past  # [capacity]
        causal = own <= own.unsqueeze(1)  # [T, T]
        hide_past = hide(seen, embeds.dtype)
        hide_own = hide(causal, embeds.dtype).repeat(groups, 1)
        x = embeds
        rows: list[Tensor] = []
        for index, layer in enumerate(self.decoder.layers):
            assert isinstance(layer, Layer)
            k, v = caches[2 * index], caches[2 * index + 1]
            attended, own_k, own_v = attention(
                layer.self_attn, layer.input_layernorm(x), cos, sin, hide_past, hide_own, k, v
            )
            x = x + attended
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            rows += [own_k, own_v]
        return self.decoder.norm(x), rows


def hide(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where seen, else so little that nothing is left of it. Not minus
    infinity, of which a row without anything seen would make NaN."""
    lowest = -1e4 if dtype == torch.float16 else -1e9
    return torch.where(seen, 0.0, lowest).to(dtype)


def attention(
    stage: Attention,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    hide_past: Tensor,
    hide_own: Tensor,
    k: Tensor,
    v: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """x [T, hidden] to itself and to a cache [kv_heads, capacity, head_dim]: what comes out, and
    the keys and values of x, [kv_heads, T, head_dim]."""
    tokens, dim = x.shape[0], stage.head_dim
    q = stage.q_norm(stage.q_proj(x).view(tokens, -1, dim)).transpose(0, 1)
    own_k = rotate(stage.k_norm(stage.k_proj(x).view(tokens, -1, dim)).transpose(0, 1), cos, sin)
    own_v = stage.v_proj(x).view(tokens, -1, dim).transpose(0, 1)
    q = rotate(q, cos, sin).reshape(stage.kv_heads, -1, dim) / math.sqrt(dim)
    to_past = q @ k.transpose(1, 2) + hide_past
    to_own = q @ own_k.transpose(1, 2) + hide_own
    weights = torch.cat((to_past, to_own), dim=-1).to(torch.float32).softmax(-1).to(x.dtype)
    capacity = k.shape[1]
    out = weights[..., :capacity] @ v + weights[..., capacity:] @ own_v
    out = out.view(-1, tokens, dim).transpose(0, 1).reshape(tokens, -1)
    return stage.o_proj(out), own_k, own_v


class Head(nn.Module):
    """Hidden states [T, hidden] to logits [T, vocab] float32."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(hidden).to(torch.float32)


def decoder_plan(config: LlmConfig | SpeechConfig, *, norm_heads: bool, int4: bool = False) -> Plan:
    """What `runtime.export` makes of a decoder: inputs embeds, past, cache.0, cache.1 and so on;
    outputs hidden, rows.0, rows.1 and so on. Weights have the names that they have in `Decoder`,
    behind "decoder."."""
    caches = [f"cache.{index}" for index in range(2 * config.layers)]
    # Of any number but one: the tracer takes that for a constant. A graph takes one as well.
    tokens, rows = (torch.export.Dim(name, min=2) for name in ("tokens", "rows"))

    def example() -> tuple[Any, ...]:
        cache = [torch.zeros(config.kv_heads, 3, config.head_dim) for _ in caches]
        return torch.zeros(5, config.hidden), torch.tensor([2]), cache

    return Plan(
        make=lambda: DecoderStep(Decoder(config, norm_heads)),
        example=example,
        dynamic=({0: tokens}, None, [{1: rows}] * len(caches)),
        inputs=["embeds", "past", *caches],
        outputs=["hidden", *(name.replace("cache", "rows") for name in caches)],
        int4=lambda name: int4 and name.endswith("_proj.weight"),
    )


def head_plan(hidden: int, vocab: int, *, int4: bool = False) -> Plan:
    """A head: input hidden, output logits; its weight is "head.weight"."""
    return Plan(
        make=lambda: Head(nn.Linear(hidden, vocab, bias=False)),
        example=lambda: (torch.zeros(5, hidden),),
        dynamic=({0: torch.export.Dim("tokens", min=2)},),
        inputs=["hidden"],
        outputs=["logits"],
        int4=lambda name: int4,
    )

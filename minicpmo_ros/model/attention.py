"""Attention without causality, as the encoders have it, by what is fastest on a machine."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# Scores that are made before they are used. More would leave a core's cache.
SCORES_AT_ONCE = 2**21


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(head_dim)) v.

    On a CPU PyTorch's fused attention makes nothing of instructions for bfloat16. Plain products,
    of a few heads at a time, take less than half as long. Their scores are rounded to bfloat16,
    which the results of an encoder do not show beside the rounding of everything else.

    Args:
        q: [B, heads, T, head_dim].
        k, v: [B, heads, S, head_dim].
        mask: bool, two axes or more that broadcast to [B, heads, T, S], true where a query sees
            a key; each must see one. None: all see all.

    Returns:
        [B, heads, T, head_dim].
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    bias = q.new_zeros(1, 1)
    if mask is not None:
        bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    # Of its last two axes, those of length one stay so: a copy for each head is small then.
    bias = bias.expand(*q.shape[:2], *bias.shape[-2:])
    heads = max(1, SCORES_AT_ONCE // (q.shape[2] * k.shape[2]))
    parts = (x.flatten(0, 1).split(heads) for x in (bias, q, k, v))
    scale = q.shape[-1] ** -0.5
    return torch.cat(
        [
            torch.baddbmm(bias, q, k.mT, alpha=scale).softmax(-1) @ v
            for bias, q, k, v in zip(*parts, strict=True)
        ]
    ).view_as(q)

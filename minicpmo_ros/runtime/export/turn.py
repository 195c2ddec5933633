"""The graph that turns keys when they move to other rows, for caches that never leave a card."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minicpmo_ros.model.rope import rotate
from minicpmo_ros.runtime.export.writer import Plan


class Turn(nn.Module):
    """Keys [rows, head_dim] that all move by the same distance, so that one cosine and sine,
    [head_dim / 2] float32, are for all of them. Computed in float32."""

    def forward(self, keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(keys, cos, sin)


def turn_plan(head_dim: int, *, dtype: str = "float32") -> Plan:
    """Inputs keys, cos and sin; output turned."""
    half = head_dim // 2
    return Plan(
        make=Turn,
        example=lambda: (torch.zeros(5, head_dim), torch.zeros(half), torch.zeros(half)),
        dynamic=({0: torch.export.Dim("rows", min=2)}, None, None),
        inputs=["keys", "cos", "sin"],
        outputs=["turned"],
        dtype=dtype,
        single=("cos", "sin"),
    )

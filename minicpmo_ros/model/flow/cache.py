"""What a stream remembers of the tokens before: prompt and turn. No torch.

What it remembers of frames lies with the stages (`stages.Solver`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.rows import Forget, kept_frames, kept_tokens

Array = NDArray[np.float32]


@dataclass(frozen=True)
class EncoderCache:
    """See `encoder.TokenEncoder.forward` for shapes. Never written in place."""

    before: Array
    up_before: Array
    k: Array
    v: Array
    up_k: Array
    up_v: Array

    @classmethod
    def empty(cls, config: FlowConfig) -> EncoderCache:
        sizes = config.conformer
        head_dim = sizes.hidden // sizes.heads

        def zeros(*shape: int) -> Array:
            return np.zeros(shape, np.float32)

        rows = zeros(sizes.layers, sizes.heads, 0, head_dim)
        up_rows = zeros(sizes.up_layers, sizes.heads, 0, head_dim)
        before, up_before = zeros(sizes.hidden, 2), zeros(sizes.hidden, 2 * sizes.up)
        return cls(before, up_before, rows, rows, up_rows, up_rows)

    @property
    def tokens(self) -> int:
        """Rows at the rate of tokens."""
        return self.k.shape[2]

    def followed_by(
        self, own: Sequence[Array], prompt_tokens: int, up: int, forget: Forget
    ) -> EncoderCache:
        """The cache behind a chunk, of what the stage gave beside the mean."""
        before, up_before, *new = own
        past = (self.k, self.v, self.up_k, self.up_v)
        k, v, up_k, up_v = (np.concatenate(pair, axis=2) for pair in zip(past, new, strict=True))
        tokens = kept_tokens(k.shape[2], prompt_tokens, up, forget)
        frames = kept_frames(up_k.shape[2], prompt_tokens * up)
        k, v = (_rows(x, tokens) for x in (k, v))
        up_k, up_v = (_rows(x, frames) for x in (up_k, up_v))
        return EncoderCache(before, up_before, k, v, up_k, up_v)


def _rows(x: Array, kept: list[int]) -> Array:
    return x if len(kept) == x.shape[2] else x[:, :, kept]

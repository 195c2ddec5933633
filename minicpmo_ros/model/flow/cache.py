"""What a stream remembers of the frames and tokens before: prompt and turn, in every stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.rows import Forget, FrameSlots, kept_frames, kept_tokens


@dataclass(frozen=True)
class EncoderCache:
    """See `encoder.TokenEncoder.forward` for shapes. Never written in place."""

    before: Tensor
    up_before: Tensor
    k: Tensor
    v: Tensor
    up_k: Tensor
    up_v: Tensor

    @classmethod
    def empty(
        cls, config: FlowConfig, dtype: torch.dtype, device: torch.device | str
    ) -> EncoderCache:
        sizes = config.conformer
        head_dim = sizes.hidden // sizes.heads

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        rows = zeros(sizes.layers, sizes.heads, 0, head_dim)
        up_rows = zeros(sizes.up_layers, sizes.heads, 0, head_dim)
        before, up_before = zeros(sizes.hidden, 2), zeros(sizes.hidden, 2 * sizes.up)
        return cls(before, up_before, rows, rows, up_rows, up_rows)

    @property
    def tokens(self) -> int:
        """Rows at the rate of tokens."""
        return self.k.shape[2]

    def followed_by(
        self, own: Sequence[Tensor], prompt_tokens: int, up: int, forget: Forget
    ) -> EncoderCache:
        """The cache behind a chunk, of what the stage gave beside the mean."""
        before, up_before, *new = own
        past = (self.k, self.v, self.up_k, self.up_v)
        k, v, up_k, up_v = (torch.cat(pair, dim=2) for pair in zip(past, new, strict=True))
        tokens = kept_tokens(k.shape[2], prompt_tokens, up, forget)
        frames = kept_frames(up_k.shape[2], prompt_tokens * up)
        k, v = (_rows(x, tokens) for x in (k, v))
        up_k, up_v = (_rows(x, frames) for x in (up_k, up_v))
        return EncoderCache(before, up_before, k, v, up_k, up_v)


class EstimatorCache:
    """Buffers for every step of the solver: each has a past of its own.

    Args:
        prompt_frames: rows of the prompt, to be stored by `store_prompt` at first.
    """

    def __init__(
        self,
        config: FlowConfig,
        steps: int,
        prompt_frames: int,
        forget: Forget,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        sizes = config.estimator
        self.slots = FrameSlots(prompt_frames, forget)
        shape = (steps, sizes.layers, 2, sizes.heads, self.slots.capacity, sizes.head_dim)
        self.k, self.v = (torch.empty(shape, dtype=dtype, device=device) for _ in "kv")
        before = (steps, sizes.layers, 2, 2 * sizes.hidden, sizes.kernel - 1)
        self.before = torch.zeros(before, dtype=dtype, device=device)
        self._prompt_before = self.before

    @property
    def nbytes(self) -> int:
        return self.k.nbytes + self.v.nbytes + self.before.nbytes

    def past(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """before, k and v as `Estimator.forward` has them; no copies."""
        rows = slice(self.slots.start, self.slots.stop)
        return self.before[step], self.k[step, :, :, :, rows], self.v[step, :, :, :, rows]

    def store_prompt(self, step: int, before: Tensor, k: Tensor, v: Tensor) -> None:
        order = torch.tensor(self.slots.prompt_order(), device=self.k.device)
        for buffer, new in ((self.k, k), (self.v, v)):
            buffer[step, :, :, :, self.slots.room :] = new.index_select(3, order)
        self.before[step] = before

    def store(
        self, step: int, before: Tensor, k: Tensor, v: Tensor, kept: Tensor, slots: Tensor
    ) -> None:
        """Rows `kept` of a chunk go to `slots`, as `FrameSlots.push` says."""
        for buffer, new in ((self.k, k), (self.v, v)):
            buffer[step].index_copy_(3, slots, new.index_select(3, kept))
        self.before[step] = before

    def reset(self) -> None:
        """Only the prompt is left. Called behind `store_prompt`, too."""
        self.slots.reset()
        self.before = self._prompt_before.clone()


def _rows(x: Tensor, kept: list[int]) -> Tensor:
    if len(kept) == x.shape[2]:
        return x
    return x.index_select(2, torch.tensor(kept, device=x.device))

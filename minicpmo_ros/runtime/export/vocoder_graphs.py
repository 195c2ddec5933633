"""The flow network's stages as graphs: pasts have a fixed number of rows, of which some are filled.

A row that holds nothing is not seen. So a past needs no other size from chunk to chunk, is read
where it lies, and what runs the graph meets few shapes. The vocoder behind them needs no change.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.conformer import ConformerLayer
from minicpmo_ros.model.flow.encoder import TokenEncoder
from minicpmo_ros.model.flow.estimator import Estimator, EstimatorLayer


class EncoderStep(TokenEncoder):
    """`TokenEncoder` that computes distances itself: a percent of what the solver takes."""

    def forward(  # type: ignore[override]
        self,
        ids: Tensor,
        known: Tensor,
        filled: Tensor,
        before: Tensor,
        up_before: Tensor,
        k: Tensor,
        v: Tensor,
        up_k: Tensor,
        up_v: Tensor,
    ) -> tuple[Tensor, ...]:
        """As `TokenEncoder.forward`, but for:

        Args:
            filled: int64 [1], so many rows of the past are filled, those at its end; of the past
                at the rate of frames, `up` times as many.
        """
        encoder = self.encoder
        rows, tokens = k.shape[2], ids.shape[0] - encoder.config.look_ahead
        up = encoder.config.up
        distances = self._distances(encoder.encoders, rows, tokens)
        up_distances = self._distances(encoder.up_encoders, up * rows, up * tokens)
        places = torch.arange(rows + tokens, device=ids.device)
        seen = (places >= rows - filled).expand(tokens, rows + tokens)
        return super().forward(
            ids, known, before, up_before, distances, up_distances, k, v, up_k, up_v, seen
        )

    def _distances(self, layers: nn.ModuleList, rows: int, tokens: int) -> Tensor:
        """What `relative.window` would leave of `Conformer.distances`: [layers, heads, rows +
        2 tokens - 1, head_dim]."""
        channels, device = self.encoder.config.hidden, self.encoder_proj.weight.device
        place = torch.arange(rows + 2 * tokens - 1, device=device)
        distance = (rows + tokens - 1 - place).to(torch.float32)
        channel = torch.arange(0, channels, 2, dtype=torch.float32, device=device)
        angle = distance[:, None] * torch.exp(channel * -(math.log(10000.0) / channels))
        table = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)
        found = []
        for layer in layers:
            assert isinstance(layer, ConformerLayer)
            found.append(layer.self_attn.distances(table))
        return torch.stack(found)


class EstimatorStep(Estimator):
    """`Estimator` without what makes modulations, which are a table."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__(config)
        del self.t_embedder, self.final_layer.adaLN_modulation
        for block in self.blocks:
            assert isinstance(block, EstimatorLayer)
            del block.adaLN_modulation

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        mean: Tensor,
        voice: Tensor,
        known: Tensor,
        modulation: Tensor,
        last_modulation: Tensor,
        filled: Tensor,
        before: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> tuple[Tensor, ...]:
        """As `Estimator.forward`, but for:

        Args:
            filled: int64 [2], rows of the past from the first of these to before the second.
        """
        places = torch.arange(k.shape[3], device=k.device)
        past = (places >= filled[:1]) & (places < filled[1:])
        own = torch.ones(x.shape[0], dtype=torch.bool, device=k.device)
        seen = torch.cat((past, own))
        given = (x, mean, voice, known, modulation, last_modulation, before, k, v)
        return super().forward(*given, seen)

"""Two stages: a voice's vector to what conditions every frame, and tokens to what their frames are
to be like."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.conformer import Conformer


class VoiceProjection(nn.Module):
    """The direction of a voice's vector, in the width of a frame."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.spk_embed_affine_layer = nn.Linear(config.voice, config.mels)

    def forward(self, voice: Tensor) -> Tensor:
        """[voice] -> [mels]."""
        layer = self.spk_embed_affine_layer
        return layer(F.normalize(voice.to(layer.weight.dtype), dim=-1))


class TokenEncoder(nn.Module):
    """Speech tokens to the mean of their frames, behind a past."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        width = config.conformer.hidden
        self.input_embedding = nn.Embedding(config.tokens, width)
        self.encoder = Conformer(config.conformer)
        self.encoder_proj = nn.Linear(width, config.mels)

    def forward(
        self,
        ids: Tensor,
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
        """T tokens, of which all see each other and the past.

        Args:
            ids: int64 [T + look_ahead]; only the first T are encoded.
            known: bool [T + look_ahead], false for ids that only fill up: behind the end of speech
                nothing follows.
            before: [hidden, 2], inputs of a convolution before these, zeros at first.
            up_before: [hidden, 2 up], likewise.
            distances: [layers, heads, S + 2 T - 1, head_dim]: `relative.window` of the table of
                `Conformer.distances`.
            up_distances: [up_layers, heads, up S + 2 up T - 1, head_dim], likewise.
            k, v: the cache at the rate of tokens, [layers, heads, S, head_dim].
            up_k, up_v: at that of frames, [up_layers, heads, up S, head_dim].
            seen: bool [T, S + T], true where a token sees another; None: all see all.

        Returns:
            The mean [up T, mels]; before and up_before of the next; k, v, up_k and up_v of these
            tokens: [..., heads, T or up T, head_dim].
        """
        x, *rest = self.encoder(
            self.input_embedding(ids),
            known,
            before,
            up_before,
            distances,
            up_distances,
            k,
            v,
            up_k,
            up_v,
            seen,
        )
        return self.encoder_proj(x), *rest

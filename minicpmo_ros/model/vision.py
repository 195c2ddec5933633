"""The eyes: SigLIP2 over the patches of pictures of any size, and 64 embeddings for each of them.

Key names are the checkpoint's (`vpm.`, `resampler.`). Nothing is kept between calls.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.model.attention import attend
from minicpmo_ros.model.part_configs import ResamplerConfig, VisionConfig
from minicpmo_ros.model.picture import Slice, batch
from minicpmo_ros.model.resampler import Resampler


class VisionEmbeddings(nn.Module):
    """A linear map of each patch, plus the learned embedding of its position."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.patch_embedding = nn.Conv2d(3, config.hidden, config.patch, stride=config.patch)
        self.position_embedding = nn.Embedding(config.side**2, config.hidden)

    def forward(self, pixels: Tensor, position_ids: Tensor) -> Tensor:
        """[B, 3, patch, patch * P] and [B, P] -> [B, P, hidden]."""
        # A convolution whose stride is its kernel is a matrix product, which CPUs do faster.
        patches = pixels.unflatten(3, (-1, self.patch)).permute(0, 3, 1, 2, 4).flatten(2)
        weight = self.patch_embedding.weight.flatten(1)
        x = F.linear(patches.to(weight.dtype), weight, self.patch_embedding.bias)
        return x + self.position_embedding(position_ids)


class VisionAttention(nn.Module):
    """Multi-head attention of all patches of a picture to each other."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_proj = nn.Linear(config.hidden, config.hidden)
        self.k_proj = nn.Linear(config.hidden, config.hidden)
        self.v_proj = nn.Linear(config.hidden, config.hidden)
        self.out_proj = nn.Linear(config.hidden, config.hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: [B, P, hidden]; mask: bool [B, 1, 1, P], true where seen."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attend(q, k, v, mask).transpose(1, 2).flatten(2))


class VisionMlp(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden, config.ffn)
        self.fc2 = nn.Linear(config.ffn, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VisionLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.mlp = VisionMlp(config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class VisionEncoder(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Vision(nn.Module):
    """SigLIP2 (Tschannen et al., 2025) with NaViT positions, without its pooling head."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden, eps=config.norm_eps)

    def forward(self, pixels: Tensor, position_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Patches to features.

        Args:
            pixels: float [B, 3, patch, patch * P], patches side by side.
            position_ids: int64 [B, P].
            mask: bool [B, P], false at padding; None if there is none.

        Returns:
            [B, P, hidden]; what stands at padding means nothing.
        """
        x = self.embeddings(pixels, position_ids)
        return self.post_layernorm(self.encoder(x, None if mask is None else mask[:, None, None]))


class VisionStage(nn.Module):
    """Slices of pictures in, embeddings for the language model out."""

    def __init__(self, vision: VisionConfig, resampler: ResamplerConfig) -> None:
        super().__init__()
        self.side = vision.side
        self.vpm = Vision(vision)
        self.resampler = Resampler(resampler)

    def forward(
        self, pixels: Tensor, position_ids: Tensor, cells: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """A batch as `picture.Patches` has it -> [B, queries, llm hidden]."""
        return self.resampler(self.vpm(pixels, position_ids, mask), cells, mask)

    @torch.inference_mode()
    def look(self, shown: Sequence[Slice], batch_size: int = 16) -> Tensor:
        """Any number of slices, `batch_size` at a time: [slices, queries, llm hidden].

        No slices give an empty tensor.
        """
        query = self.resampler.query
        seen = [query.new_empty(0, *query.shape)]
        for start in range(0, len(shown), batch_size):
            found = batch(shown[start : start + batch_size], self.side)
            arrays = (found.pixels, found.position_ids, found.cells, found.mask)
            seen.append(
                self(*(None if x is None else torch.from_numpy(x).to(query.device) for x in arrays))
            )
        return torch.cat(seen)

"""The language model: Qwen3-8B with a vocabulary for sound, pictures and turns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minicpmo_ros.model.decoder import Decoder
from minicpmo_ros.model.kv import KvCache
from minicpmo_ros.model.part_configs import LlmConfig


class Qwen3(Decoder):
    """The decoder with the table of its tokens, which is where a checkpoint has it."""

    def __init__(self, config: LlmConfig) -> None:
        super().__init__(config, norm_heads=True)
        self.embed_tokens = nn.Embedding(config.vocab, config.hidden)


class Llm(nn.Module):
    """Embeddings of text, pictures and sound in; hidden states, and on demand logits, out.

    The speech decoder is conditioned on hidden states, so they are the result; logits are made by
    `head` for the positions that are sampled from, which in a prefill is only the last.
    """

    def __init__(self, config: LlmConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Qwen3(config)
        self.lm_head = nn.Linear(config.hidden, config.vocab, bias=False)

    def forward(
        self, embeds: Tensor, positions: Tensor, mask: Tensor | None, k: Tensor, v: Tensor
    ) -> Tensor:
        """As `Decoder.forward`: embeds [T, hidden] -> hidden states [T, hidden]."""
        return self.model(embeds, positions, mask, k, v)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [T] int64 -> embeddings [T, hidden]."""
        return self.model.embed_tokens(ids)

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states [T, hidden] -> logits [T, vocab] float32."""
        return self.lm_head(hidden).to(torch.float32)

    def cache(self, capacity: int) -> KvCache:
        """An empty cache for `capacity` tokens, in the dtype and on the device of the weights."""
        return self.model.cache(capacity)

    def extend(self, embeds: Tensor, cache: KvCache, at: int | None = None) -> Tensor:
        """As `Decoder.extend`: read embeddings [T, hidden] into a cache -> hidden states."""
        return self.model.extend(embeds, cache, at)

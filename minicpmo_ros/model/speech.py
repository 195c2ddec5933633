"""The speech decoder: a small Llama that writes codes of sound, 25 for a second of speech.

It reads a condition, the text to be said as the language model's tokens and hidden states, and then
its own codes, one by one. Turns and chunks are the affair of `duplex.speech`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.model.decoder import Decoder
from minicpmo_ros.model.kv import KvCache
from minicpmo_ros.model.part_configs import SpeechConfig


class Projector(nn.Module):
    """Hidden states of the language model, in the width of the speech decoder."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inputs, outputs)
        self.linear2 = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.relu(self.linear1(x)))


class SpeechDecoder(nn.Module):
    """Condition or code embeddings in, hidden states out; `head` makes logits of codes."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.config = config
        self.emb_text = nn.Embedding(config.text_vocab, config.hidden)
        # Lists of one, because the names in a checkpoint foresee several codebooks.
        self.emb_code = nn.ModuleList([nn.Embedding(config.codes, config.hidden)])
        self.head_code = nn.ModuleList([nn.Linear(config.hidden, config.codes, bias=False)])
        self.projector_semantic = Projector(config.llm_hidden, config.hidden)
        self.model = Decoder(config, norm_heads=False)

    def forward(
        self, embeds: Tensor, positions: Tensor, mask: Tensor | None, k: Tensor, v: Tensor
    ) -> Tensor:
        """As `Decoder.forward`: embeds [T, hidden] -> hidden states [T, hidden]."""
        return self.model(embeds, positions, mask, k, v)

    def condition(
        self, ids: Tensor, hidden: Tensor, *, text_ended: bool = False, normalize: bool = True
    ) -> Tensor:
        """Text to be said next: each token merged with what the language model thought with it.

        Args:
            ids: [N] int64, N may be 0.
            hidden: [N, llm_hidden], the language model's hidden states after it read those tokens.
            text_ended: mark that no more text follows. Duplex never does.
            normalize: scale the projected states to length 1. Duplex always does; the other modes
                follow `SpeechConfig.normalize_hidden`.

        Returns:
            [N + 1, hidden], or [N + 2, hidden] with the mark: the last is the sign to begin.
        """
        thought = self.projector_semantic(hidden)
        if normalize:
            thought = F.normalize(thought, dim=-1)
        signs = [self.config.text_eos] * text_ended + [self.config.audio_bos]
        sign = self.emb_text(torch.tensor(signs, device=ids.device))
        return torch.cat((self.emb_text(ids) + thought, sign))

    def embed(self, codes: Tensor) -> Tensor:
        """Codes [T] int64 -> embeddings [T, hidden]."""
        return self.emb_code[0](codes)

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states [T, hidden] -> logits [T, codes] float32."""
        return self.head_code[0](hidden).to(torch.float32)

    def cache(self, capacity: int | None = None) -> KvCache:
        """An empty cache for one turn; `capacity` defaults to all positions the decoder has."""
        return self.model.cache(capacity or self.config.max_positions)

    def extend(self, embeds: Tensor, cache: KvCache, at: int | None = None) -> Tensor:
        """As `Decoder.extend`: read embeddings [T, hidden] into a cache -> hidden states."""
        return self.model.extend(embeds, cache, at)

"""The speech decoder: a small Llama that writes codes of sound, 25 for a second of speech.

A turn is a sequence of chunks. Each begins with a condition, the text to be said as the language
model's tokens and hidden states, and goes on with up to 25 codes, which the vocoder turns into a
second of sound. Keys and values last for the turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from minicpmo_ros.errors import ConfigError, NumericsError
from minicpmo_ros.model.config import SpeechConfig
from minicpmo_ros.model.decoder import Decoder
from minicpmo_ros.model.kv import KvCache

CODES_PER_CHUNK = 25


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


@dataclass(frozen=True)
class CodeSampler:
    """Draws the next code.

    The rules in their order: divide by `temperature`; penalise each of the last `window` codes of
    this chunk, `repetition` to the power of how often it occurs, dividing what is positive and
    multiplying what is negative; forbid `eos` unless the chunk may end; draw. All on the CPU, so
    that a seeded `generator` draws the same wherever the network runs.

    Raises:
        ConfigError: a setting is out of its range.
    """

    eos: int
    temperature: float = 0.8
    repetition: float = 1.05
    window: int = 16
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "repetition"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"speech {name} is {getattr(self, name)}; it must be above 0")
        if self.window < 0:
            raise ConfigError(f"speech repetition window is {self.window}; it must not be negative")

    def __call__(self, logits: Tensor, history: Sequence[int], may_end: bool) -> int:
        """One code.

        Args:
            logits: [codes] float32; not changed.
            history: the codes of this chunk so far.
            may_end: whether `eos` may be drawn.

        Raises:
            NumericsError: there is a NaN in the logits, or nothing in them is finite.
        """
        scores = logits.cpu() / self.temperature
        recent = list(history[-self.window :]) if self.window else []
        if recent:
            times = torch.bincount(torch.tensor(recent), minlength=len(scores))
            penalty = self.repetition**times
            scores = torch.where(scores < 0, scores * penalty, scores / penalty)
        if not may_end:
            scores[self.eos] = -torch.inf
        chances = scores.softmax(-1)
        if chances.isnan().any():
            raise NumericsError("the speech decoder gave NaN or no finite logit; the turn is lost")
        return int(torch.multinomial(chances, 1, generator=self.generator))


class SpeechTurn:
    """What is said in one turn: condition after condition in, codes out.

    Args:
        decoder: whose weights are used.
        cache: of the decoder; cleared here, and owned by the turn from now on.
        sampler: draws the codes.
    """

    def __init__(self, decoder: SpeechDecoder, cache: KvCache, sampler: CodeSampler) -> None:
        self.decoder = decoder
        self.cache = cache
        self.sampler = sampler
        self.restart()

    def restart(self) -> None:
        """Forget everything: the next chunk begins a turn."""
        self.cache.clear()
        # The embedding of a chunk's last code. Nothing is drawn from it, so it is read with the
        # next condition: one pass through the decoder less.
        self._unread = self.cache.k.new_empty(0, self.decoder.config.hidden)

    @property
    def length(self) -> int:
        """Conditions and codes of this turn so far, in tokens."""
        return self.cache.length + len(self._unread)

    @torch.inference_mode()
    def chunk(self, condition: Tensor, *, last: bool = False) -> list[int]:
        """Say what a condition holds.

        Args:
            condition: [N, hidden], from `SpeechDecoder.condition`.
            last: the turn ends with this chunk.

        Returns:
            25 codes. Less, down to none, only in the first and the last chunk of a turn, where the
            decoder itself may end.

        Raises:
            KvFullError: the turn is too long for its cache; nothing was written.
            NumericsError: see CodeSampler.
        """
        may_end = last or self.length == 0
        self.cache.check_room(len(self._unread) + len(condition) + CODES_PER_CHUNK - 1)
        unread = torch.cat((self._unread, condition))
        codes: list[int] = []
        while len(codes) < CODES_PER_CHUNK:
            hidden = self.decoder.extend(unread, self.cache)
            code = self.sampler(self.decoder.head(hidden[-1]), codes, may_end)
            if code == self.sampler.eos:
                unread = unread[:0]
                break
            codes.append(code)
            unread = self.decoder.embed(torch.tensor([code], device=condition.device))
        self._unread = unread
        return codes

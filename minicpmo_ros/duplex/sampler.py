"""Draws tokens: what the model says next, and whether it listens or speaks.

The rules, in their order:

1. Stop? `<|chunk_eos|>` is drawn from the bare probabilities, and only here.
2. Forbid it from now on, with `<|tts_pad|>` and the tokens that cannot be spoken.
3. Repetition: tokens drawn lately lose.
4. Length: `<|turn_eos|>` loses, so that turns are not cut short.
5. Listening: its probability is scaled; or it is taken for being among the likeliest.
6. Temperature, top-k, top-p, draw; or the likeliest.

The reference scales and ranks `<|im_end|>` where it means `<|listen|>`, multiplies a logit where
it means a probability, and divides the logits of repeated tokens whatever their sign, which favours
those below zero. `reference_compat` does the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.duplex.config import SamplerConfig
from minicpmo_ros.errors import NumericsError
from minicpmo_ros.model.tokenizer import ControlIds
from minicpmo_ros.runtime.api import Logits

BLOCK = 64


class TokenSampler:
    """One conversation's sampler, with the tokens it has drawn.

    Args:
        control: ids of the control tokens.
        forbidden: ids that are never drawn, beside the control tokens of rule 2.
        rng: draws; the same seed draws the same.
    """

    def __init__(
        self,
        control: ControlIds,
        forbidden: Iterable[int],
        config: SamplerConfig,
        rng: np.random.Generator,
        *,
        reference_compat: bool = False,
    ) -> None:
        self.control = control
        self.config = config
        self._rng = rng
        self._compat = reference_compat
        self._forbidden = np.array(
            sorted({control.tts_pad, control.chunk_eos, *forbidden}), dtype=np.int64
        )
        self._drawn: deque[int] = deque(maxlen=config.repetition_window)

    def __call__(self, logits: Logits) -> int:
        """One token.

        Args:
            logits: float32 [vocab]; changed.

        Raises:
            NumericsError: there is a NaN in them, or nothing finite that may be drawn.
        """
        control, config = self.control, self.config
        if self._stops(logits):
            return control.chunk_eos
        logits[self._forbidden] = -np.inf
        penalise(logits, self._drawn, config.repetition, whatever_sign=self._compat)
        end = logits[control.turn_eos]
        logits[control.turn_eos] = (
            end / config.length_penalty if end > 0 else end * config.length_penalty
        )
        listen = control.im_end if self._compat else control.listen
        if self._compat:
            logits[listen] *= np.float32(config.listen_scale)
        else:
            logits[listen] += np.float32(np.log(config.listen_scale))
        if config.listen_top_k and np.count_nonzero(logits > logits[listen]) < config.listen_top_k:
            return listen
        token = choose(logits, config, self._rng)
        self._drawn.append(token)
        return token

    def _stops(self, logits: Logits) -> bool:
        """Rule 1, as one draw between this token and all others."""
        top = finite_top(logits)
        if self.config.greedy:
            return int(logits.argmax()) == self.control.chunk_eos
        total = np.exp(logits - top).sum(dtype=np.float64)
        return bool(self._rng.random() * total < np.exp(logits[self.control.chunk_eos] - top))


class ReplySampler:
    """Draws the tokens of a reply in turn-based modes: as rules 2, 3 and 6.

    Args:
        forbidden: ids that are never drawn.
    """

    def __init__(
        self, forbidden: Iterable[int], config: SamplerConfig, rng: np.random.Generator
    ) -> None:
        self.config = config
        self._rng = rng
        self._forbidden = np.array(sorted(forbidden), dtype=np.int64)
        self._drawn: deque[int] = deque(maxlen=config.repetition_window)

    def __call__(self, logits: Logits) -> int:
        """One token of float32 [vocab], which is changed; raises NumericsError."""
        finite_top(logits)
        logits[self._forbidden] = -np.inf
        penalise(logits, self._drawn, self.config.repetition)
        token = choose(logits, self.config, self._rng)
        self._drawn.append(token)
        return token


def finite_top(logits: Logits) -> np.float32:
    """The largest logit; raises NumericsError if there is none, or a NaN."""
    top = logits.max()
    if not np.isfinite(top):
        raise NumericsError("the language model gave NaN or no finite logit")
    return top


def penalise(
    logits: Logits, drawn: Iterable[int], repetition: float, whatever_sign: bool = False
) -> None:
    """Make tokens that were drawn less likely, in place: divide what is above zero, multiply what
    is below (Keskar et al. 2019).

    whatever_sign: divide both, as the reference does.
    """
    lately = np.array(sorted(set(drawn)), dtype=np.int64)
    if repetition != 1 and len(lately):
        factor, found = np.float32(repetition), logits[lately]
        divides = np.ones_like(found, dtype=bool) if whatever_sign else found > 0
        logits[lately] = np.where(divides, found / factor, found * factor)


def choose(logits: Logits, config: SamplerConfig, rng: np.random.Generator) -> int:
    """Rule 6; raises NumericsError if the rules before it left nothing."""
    finite_top(logits)
    if config.greedy:
        return int(logits.argmax())
    ids, chances = shortlist(logits, config)
    return int(ids[draw(chances, rng)])


def shortlist(
    logits: Logits, config: SamplerConfig
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tokens that may be drawn, likeliest first, and their probabilities.

    Top-p keeps the likeliest tokens that together reach `top_p`, the one that passes it included.
    """
    ids = likeliest(logits, config.top_k)
    scores = logits[ids].astype(np.float64) / config.temperature
    chances = np.exp(scores - scores[0])
    chances /= chances.sum()
    before = np.cumsum(chances) - chances
    kept = before <= config.top_p
    kept[0] = True
    chances = chances[kept]
    return ids[kept], chances / chances.sum()


def draw(chances: NDArray[np.float64], rng: np.random.Generator) -> int:
    """The index of one of some probabilities."""
    sums = np.cumsum(chances)
    return min(int(np.searchsorted(sums, rng.random() * sums[-1], side="right")), len(sums) - 1)


def likeliest(logits: Logits, count: int) -> NDArray[np.int64]:
    """Ids of the `count` largest logits, largest first, lower ids before higher; 0: all finite.

    The largest `count` lie in the `count` blocks with the largest maxima, so only those are sorted:
    a tenth of the time that a partition of a vocabulary takes.
    """
    if count <= 0 or count >= len(logits):
        ids = np.flatnonzero(np.isfinite(logits))
        return ids[np.argsort(-logits[ids], kind="stable")][: count or None]
    whole = len(logits) // BLOCK * BLOCK
    ids = np.arange(whole, len(logits))
    if whole:
        maxima = logits[:whole].reshape(-1, BLOCK).max(axis=1)
        if count < len(maxima):
            # Of blocks with equal maxima all are taken: an id below may be in any of them.
            blocks = np.flatnonzero(maxima >= np.partition(maxima, -count)[-count])
        else:
            blocks = np.arange(len(maxima))
        ids = np.concatenate(((blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel(), ids))
    order = np.argsort(-logits[ids], kind="stable")[:count]
    return ids[order]

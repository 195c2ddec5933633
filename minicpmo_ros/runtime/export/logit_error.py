"""How logits of rounded weights differ from those of plain ones, without ever holding either.

A vocabulary goes by in blocks. What is kept of each token is small: sums, the largest so far.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class RunningSoftmax:
    """Of each token, over the blocks so far: the largest logit, which it is, and the sum."""

    def __init__(self, tokens: int) -> None:
        self.top = torch.full((tokens,), -torch.inf, dtype=torch.float64)
        self.best = torch.zeros(tokens, dtype=torch.int64)
        self.total = torch.zeros(tokens, dtype=torch.float64)

    def add(self, logits: Tensor, first: int) -> Tensor:
        """Take in logits [tokens, block] of ids from `first` on; by what sums before are to be
        multiplied, [tokens]."""
        top, place = logits.max(1)
        self.best = torch.where(top > self.top, place + first, self.best)
        new = torch.maximum(self.top, top)
        factor = (self.top - new).exp()
        self.total = self.total * factor + (logits - new.unsqueeze(1)).exp().sum(1)
        self.top = new
        return factor

    @property
    def logsumexp(self) -> Tensor:
        return self.top + self.total.log()


class Divergence:
    """KL(plain || rounded) of each token, in nats, from blocks of both."""

    def __init__(self, tokens: int) -> None:
        self.plain, self.rounded = RunningSoftmax(tokens), RunningSoftmax(tokens)
        self._difference = torch.zeros(tokens, dtype=torch.float64)

    def add(self, plain: Tensor, rounded: Tensor, first: int) -> None:
        """Take in logits [tokens, block] of ids from `first` on."""
        plain, rounded = plain.double(), rounded.double()
        factor = self.plain.add(plain, first)
        self.rounded.add(rounded, first)
        chances = (plain - self.plain.top.unsqueeze(1)).exp()
        self._difference = self._difference * factor + (chances * (plain - rounded)).sum(1)

    def nats(self) -> NDArray[np.float64]:
        """[tokens]."""
        expected = self._difference / self.plain.total
        found: NDArray[np.float64] = (
            (expected - self.plain.logsumexp + self.rounded.logsumexp).clamp_min(0).numpy()
        )
        return found

    def same_token(self) -> float:
        """Share of tokens of which the likeliest next one is the same."""
        return float((self.plain.best == self.rounded.best).double().mean())

"""Finds the factors of one layer, from what enters its matrices.

For each group of matrices behind one source, factors are a power of how large their inputs are.
Eleven exponents are tried, in the way that an engine is built: scaled, rounded to four bits with
the mean squares of the scaled inputs as importance, and unscaled again. The one whose outputs are
nearest to those of the plain matrices is kept; the first of them, 0, is no scaling at all. Some
rows of the matrices and some of the tokens stand for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from minicpmo_ros.model.config import LlmConfig
from minicpmo_ros.model.decoder import Layer
from minicpmo_ros.runtime.export.calibration import GROUPS, GroupScale, to_heads
from minicpmo_ros.runtime.int4 import can_quantise, quantise

Array = NDArray[np.float32]
EXPONENTS = tuple(step / 10 for step in range(11))
ROWS = 512
TOKENS = 1024
# Inputs smaller than this share of their root mean square are taken for this share.
FLOOR = 1e-2


class Inputs:
    """What enters the matrices of each group of a layer, noted while the layer runs.

    Of a token whose residual stream is large, an error counts for less, for it is a smaller part of
    what it is added to; q, k and v are normed or weighed once more, and all tokens count alike.

    Args:
        hidden: all that will go through the layer, [T, hidden] each.
    """

    def __init__(self, layer: Layer, hidden: Sequence[Tensor]) -> None:
        stream = torch.cat([one.square().mean(1) for one in hidden]).clamp_min(1e-12)
        self._counts = {group: 1 / stream for group in GROUPS}
        self._counts["attention"] = torch.ones_like(stream)
        self._kept = torch.linspace(0, len(stream) - 1, min(TOKENS, len(stream))).long().unique()
        self._parts: dict[str, list[Tensor]] = {group: [] for group in GROUPS}
        self._sums = dict.fromkeys(GROUPS, torch.zeros(()))
        self._seen = dict.fromkeys(GROUPS, 0)
        self._hooks = [
            layer.get_submodule(modules[0]).register_forward_pre_hook(self._hook(group))
            for group, modules in GROUPS.items()
        ]

    def _hook(self, group: str) -> Callable[..., None]:
        def note(module: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
            x, first = given[0], self._seen[group]
            stop = self._seen[group] = first + len(x)
            counts = self._counts[group][first:stop, None]
            self._sums[group] = self._sums[group] + (x.square() * counts).sum(0)
            kept = self._kept[(self._kept >= first) & (self._kept < stop)]
            self._parts[group].append(x[kept - first])

        return note

    def stop(self) -> None:
        """Nothing more is to be noted."""
        for hook in self._hooks:
            hook.remove()

    def of(self, group: str) -> tuple[Tensor, Tensor]:
        """Of the tokens that stand for all: inputs [tokens, inputs], and how much each counts."""
        return torch.cat(self._parts[group]), self._counts[group][self._kept]

    def squares(self, group: str) -> Array:
        """Means of all tokens, float32 [inputs]."""
        return (self._sums[group] / self._counts[group].sum()).to(torch.float32).numpy()


def search(layer: Layer, inputs: Inputs, config: LlmConfig) -> dict[str, GroupScale]:
    """The factors of all groups of a layer, whose weights are left as they are."""
    found = {}
    for group in GROUPS:
        squares = inputs.squares(group)
        error = _Error(layer, group, inputs)
        tried = []
        for exponent in EXPONENTS:
            scale = power(squares, exponent, config if group == "output" else None)
            factor = to_heads(scale, config.heads) if False else scale
            tried.append((error(factor, squares), exponent, scale))
        best = min(tried, key=lambda one: one[:2])
        found[group] = GroupScale(best[2], squares)
    return found

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

from minicpmo_ros.model.decoder import Layer
from minicpmo_ros.model.part_configs import LlmConfig
from minicpmo_ros.runtime.export.calibration import GROUPS, GroupScale, spread
from minicpmo_ros.runtime.int4 import can_quantise, quantise

Array = NDArray[np.float32]
# Close to each other where they are small: of a matrix whose clips are chosen by what enters it,
# little scaling is the best one.
EXPONENTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
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
        self._counts = dict.fromkeys(GROUPS, 1 / stream)
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
    for group, modules in GROUPS.items():
        squares = inputs.squares(group)
        tried = [power(squares, exponent, group, config) for exponent in EXPONENTS]
        best = 0
        if all(can_quantise(_weight(layer, module).shape) for module in modules):
            error = _error_of(layer, group, inputs)
            best = int(np.argmin([error(spread(s, group, config), squares) for s in tried]))
        found[group] = GroupScale(tried[best], squares)
    return found


def power(squares: Array, exponent: float, group: str, config: LlmConfig) -> Array:
    """Factors as `GroupScale` has them, with the smallest as far below one as the largest above.

    Args:
        squares: mean squares of the inputs.
    """
    if group == "output":
        squares = squares.reshape(config.kv_heads, -1, config.head_dim).mean(1).reshape(-1)
    size = np.sqrt(squares)
    size = np.maximum(size, max(FLOOR * float(np.sqrt(squares.mean())), 1e-12))
    scale = size**exponent
    middle = np.sqrt(scale.max() * scale.min())
    return (scale / middle).astype(np.float32)


def _weight(layer: Layer, module: str) -> Tensor:
    return layer.get_submodule(module).get_parameter("weight")


def _error_of(layer: Layer, group: str, inputs: Inputs) -> Callable[[Array, Array], float]:
    """What rounding with some factors of the inputs, and their mean squares, costs."""
    x, counts = inputs.of(group)
    weights = [_some_rows(_weight(layer, module)) for module in GROUPS[group]]
    # What counts of gate and up is their product, as far as down_proj lets it through.
    through = _some_rows(_weight(layer, "mlp.down_proj").norm(dim=0))

    def size(made: Tensor) -> float:
        return float((made.square().sum(1) * counts).sum())

    def outputs(matrices: Sequence[Tensor]) -> list[Tensor]:
        made = [x @ matrix.T for matrix in matrices]
        return [F.silu(made[0]) * made[1] * through] if group == "mlp" else made

    plain = outputs(weights)
    sizes = [max(size(one), 1e-30) for one in plain]

    def error(factor: Array, squares: Array) -> float:
        importance = (squares / np.square(factor)).astype(np.float32)
        rounded = [
            torch.from_numpy(quantise(one.numpy() * factor, importance).weights() / factor)
            for one in weights
        ]
        pairs = zip(outputs(rounded), plain, sizes, strict=True)
        return sum(size(found - right) / whole for found, right, whole in pairs)

    return error


def _some_rows(weights: Tensor) -> Tensor:
    """At most ROWS of them, evenly from first to last."""
    rows = torch.linspace(0, len(weights) - 1, min(ROWS, len(weights))).long()
    return weights[rows]

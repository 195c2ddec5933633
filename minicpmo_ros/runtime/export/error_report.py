"""What rounding the language model's weights costs: hidden states, logits and decisions.

Compared is the arithmetic of float32 with the weights as they are and as they are once rounded;
what a runtime does beside that (half precision, inputs rounded to eight bits) is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.runtime.engines.pieces import BITS
from minicpmo_ros.runtime.export.calibration import HEAD, NORM, Calibration, quantised
from minicpmo_ros.runtime.export.layerwise import (
    CalibrationSequence,
    Progress,
    checked,
    load_layer,
    normed,
    through,
)
from minicpmo_ros.runtime.export.logit_error import Divergence

if TYPE_CHECKING:
    from rich.table import Table

    from minicpmo_ros.runtime.engines.recipe import LlmRecipe
    from minicpmo_ros.runtime.export.writer import Read

# Rows of the head that are in memory at once.
HEAD_ROWS = 4096
BITS_OF = {**BITS, "fp16": 16}
"""Of a recipe's precisions, as `Rounding` has them."""


@dataclass(frozen=True)
class Rounding:
    """A way to round. calibration: None: neither scales nor importances. bits: of the layers'
    matrices, head_bits: of the head; see `calibration.quantised`."""

    name: str
    calibration: Calibration | None = None
    bits: int = 4
    head_bits: int = 4

    @classmethod
    def of(cls, name: str, llm: LlmRecipe, calibration: Calibration | None = None) -> Rounding:
        """As a recipe has the language model."""
        return cls(name, calibration, BITS_OF[llm.precision], BITS_OF[llm.head])


@dataclass(frozen=True)
class RoundingError:
    """What one way to round costs.

    own: by how much a layer's output is off when its input is right, as a share of its length, mean
    of the tokens; layer by layer. so_far: the same after all layers up to each. kl_mean, kl_p99: of
    the probabilities of the next token, in nats. same_token: share of tokens after which the
    likeliest is the same. same_decision: share of units in which listening and speaking keep their
    order. listen_change: by how much the probability of listening, of those two, changes at a
    decision, mean. None where nothing is decided.
    """

    name: str
    own: tuple[float, ...]
    so_far: tuple[float, ...]
    kl_mean: float
    kl_p99: float
    same_token: float
    same_decision: float | None
    listen_change: float | None


@dataclass(frozen=True)
class ErrorReport:
    """All ways, on the same conversations of so many tokens and decisions."""

    tokens: int
    decisions: int
    errors: tuple[RoundingError, ...]


def error_report(
    checkpoint: Checkpoint,
    sequences: Sequence[CalibrationSequence],
    roundings: Sequence[Rounding],
    *,
    listen: int,
    speak: int,
    progress: Progress = lambda done, of: None,
) -> ErrorReport:
    """Run conversations through the language model, plain and rounded, layer by layer.

    Memory holds the weights of one layer at a time, and the head in pieces.

    Args:
        listen, speak: ids of the two control tokens.

    Raises:
        EngineError: the sequences are of no use, or a calibration is that of another network.
    """
    config = checkpoint.config.llm
    plain = checked(sequences, config)
    for rounding in roundings:
        if rounding.calibration is not None:
            rounding.calibration.check_fits(config)

    def read(name: str) -> np.ndarray:
        return checkpoint.read(name).numpy()

    states = [list(plain) for _ in roundings]
    own: list[list[float]] = [[] for _ in roundings]
    so_far: list[list[float]] = [[] for _ in roundings]
    for index in range(config.layers):
        progress(index, config.layers)
        before = plain
        layer = load_layer(read, config, index)
        plain = [through(layer, config, one) for one in plain]
        del layer
        for number, rounding in enumerate(roundings):
            layer = load_layer(_rounded(read, rounding), config, index)
            alone = [through(layer, config, one) for one in before]
            states[number] = [through(layer, config, one) for one in states[number]]
            own[number].append(_off(alone, plain))
            so_far[number].append(_off(states[number], plain))
            del layer
    progress(config.layers, config.layers)
    logits = _Logits(checkpoint, normed(torch.cat(plain), read(NORM), config), listen, speak)
    ends = [normed(torch.cat(one), read(NORM), config) for one in states]
    logits.compare(ends, roundings)
    at = _decided(sequences)
    errors = tuple(
        RoundingError(one.name, tuple(own[n]), tuple(so_far[n]), *logits.costs(n, at))
        for n, one in enumerate(roundings)
    )
    return ErrorReport(sum(map(len, plain)), len(at), errors)


def _rounded(read: Read, rounding: Rounding) -> Read:
    calibration = rounding.calibration
    if calibration is None:
        return quantised(read, bits=rounding.bits)
    return quantised(calibration.scaled(read), calibration.importance, rounding.bits)


def _off(found: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    differ = torch.cat(
        [(a - b).norm(dim=1) / b.norm(dim=1) for a, b in zip(found, right, strict=True)]
    )
    return float(differ.mean())


def _decided(sequences: Sequence[CalibrationSequence]) -> list[int]:
    """Rows of all sequences, one behind the other, at which a unit is decided."""
    rows, first = [], 0
    for one in sequences:
        rows += [first + row for row in one.decisions]
        first += len(one.embeds)
    return rows


class _Logits:
    """The plain logits held against those of each way to round, a piece of the head at a time."""

    def __init__(self, checkpoint: Checkpoint, plain: Tensor, listen: int, speak: int) -> None:
        self._checkpoint, self._plain = checkpoint, plain
        self._ids = (listen, speak)
        self._divergences: list[Divergence] = []
        # Logit of listening less that of speaking, [tokens]: plain, then of each rounding.
        self._margins: list[NDArray[np.float64]] = []

    def compare(self, ends: Sequence[Tensor], roundings: Sequence[Rounding]) -> None:
        tokens, vocab = len(self._plain), self._checkpoint.config.llm.vocab
        self._divergences = [Divergence(tokens) for _ in roundings]
        self._margins = [np.zeros(tokens) for _ in range(len(roundings) + 1)]
        for first in range(0, vocab, HEAD_ROWS):
            rows = self._checkpoint.read(HEAD, rows=slice(first, min(first + HEAD_ROWS, vocab)))
            plain = self._plain @ rows.T
            self._note_margin(0, plain, first)
            for number, (rounding, hidden) in enumerate(zip(roundings, ends, strict=True)):
                found = hidden @ self._head(rows, rounding).T
                self._divergences[number].add(plain, found, first)
                self._note_margin(number + 1, found, first)

    @staticmethod
    def _head(rows: Tensor, rounding: Rounding) -> Tensor:
        read = _rounded(lambda name: rows.numpy(), replace(rounding, bits=rounding.head_bits))
        return torch.from_numpy(read(HEAD))

    def _note_margin(self, number: int, logits: Tensor, first: int) -> None:
        for token, sign in zip(self._ids, (1.0, -1.0), strict=True):
            if 0 <= token - first < logits.shape[1]:
                self._margins[number] += sign * logits[:, token - first].double().numpy()

    def costs(
        self, number: int, decisions: Sequence[int]
    ) -> tuple[float, float, float, float | None, float | None]:
        """The last fields of `RoundingError`."""
        divergence = self._divergences[number]
        nats = divergence.nats()
        kl = float(nats.mean()), float(np.quantile(nats, 0.99)), divergence.same_token()
        if not decisions:
            return *kl, None, None
        right, found = (self._margins[n][list(decisions)] for n in (0, number + 1))
        change = np.abs(_listens(found) - _listens(right)).mean()
        return *kl, float(((right > 0) == (found > 0)).mean()), float(change)


def _listens(margin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of listening, of the two."""
    return 0.5 * (1 + np.tanh(margin / 2))


def error_table(report: ErrorReport) -> Table:
    """What each way to round costs in the end, for a terminal."""
    from rich.table import Table

    table = Table(
        "rounding", "KL mean", "KL p99", "same token", "same decision", "P(listen)", "hidden"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for error in report.errors:
        table.add_row(
            error.name,
            f"{error.kl_mean:.4f}",
            f"{error.kl_p99:.4f}",
            f"{error.same_token:.1%}",
            "-" if error.same_decision is None else f"{error.same_decision:.1%}",
            "-" if error.listen_change is None else f"± {error.listen_change:.3f}",
            f"{error.so_far[-1]:.1%}",
        )
    table.caption = (
        f"{report.tokens} tokens, {report.decisions} decisions; KL in nats; P(listen) of listening"
        " and speaking; hidden: how far off the last layer's output is"
    )
    return table


def layer_table(report: ErrorReport) -> Table:
    """All layers of the language model: how far off each is by itself, the worst of them marked,
    and how far off all are up to it."""
    from rich.table import Table

    table = Table("layer")
    for error in report.errors:
        table.add_column(f"{error.name}: own", justify="right")
        table.add_column("so far", justify="right")
    worst = [max(range(len(error.own)), key=error.own.__getitem__) for error in report.errors]
    for layer in range(len(report.errors[0].own)):
        cells = []
        for error, most in zip(report.errors, worst, strict=True):
            cells.append(f"{error.own[layer]:.2%}{' <' if layer == most else ''}")
            cells.append(f"{error.so_far[layer]:.2%}")
        table.add_row(str(layer), *cells)
    table.caption = (
        "own: of a layer whose input is right; so far: of all layers up to it; <: the worst; shares"
        " of an output's length"
    )
    return table

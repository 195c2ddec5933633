"""Logits over a vocabulary, of which a golden pair keeps a part."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import InputError
from minicpmo_ros.parity.compare import Row, close
from minicpmo_ros.parity.golden import Golden

STRIDE = 997


def compare_logits(golden: Golden, name: str, logits: NDArray[np.float32]) -> Iterator[Row]:
    """A row for each part that is kept: the largest and their ids, logsumexp, every 997th.

    Of logits that differ by less than the tolerance either may be the larger, so ids are compared
    by their logits: those at the golden ids must be our largest.

    Args:
        name: of the arrays, up to the last point.
        logits: [steps, vocab].

    Raises:
        InputError: an array is not in the pair, or has ids that the vocabulary does not.
    """
    ids, vocab = golden.array(f"{name}.top_ids"), logits.shape[-1]
    if ids.ndim != 2 or len(ids) != len(logits) or not ((ids >= 0) & (ids < vocab)).all():
        raise InputError(
            f"{golden.prefix}.npz: {name}.top_ids is {list(ids.shape)} with ids up to"
            f" {ids.max(initial=-1)}; {len(logits)} steps over a vocabulary of {vocab} were made"
        )
    largest = -np.sort(-logits, axis=-1)[:, : ids.shape[1]]
    yield close(f"{name}.top_ids", np.take_along_axis(logits, ids.astype(np.int64), -1), largest)
    yield close(f"{name}.top_values", largest, golden.array(f"{name}.top_values"))
    yield close(f"{name}.logsumexp", logsumexp(logits), golden.array(f"{name}.logsumexp"))
    yield close(f"{name}.every_997th", logits[:, ::STRIDE], golden.array(f"{name}.every_997th"))


def logsumexp(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """log of the sum of exponentials of each row."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=-1, keepdims=True)
    total: NDArray[np.float64] = np.log(np.exp(wide - top).sum(axis=-1)) + top[:, 0]
    return total

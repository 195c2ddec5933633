"""One row of the result: an entry of the golden pair, and how near to it we are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

TOLERANCE = 1e-4
"""Of the largest magnitude, in float32."""


@dataclass(frozen=True)
class Row:
    """An entry compared.

    error: the largest difference as a share of the largest magnitude; None where nothing but
    equality will do. note: what is wrong, or worth knowing.
    """

    entry: str
    error: float | None
    passed: bool
    note: str = ""


def close(entry: str, found: ArrayLike, golden: ArrayLike, tolerance: float = TOLERANCE) -> Row:
    """Arrays of one shape, equal up to `tolerance` times the largest golden magnitude."""
    found, golden = np.asarray(found, np.float64), np.asarray(golden, np.float64)
    if found.shape != golden.shape:
        wrong = f"is {list(found.shape)} instead of {list(golden.shape)}"
        return Row(entry, float("inf"), False, wrong)
    if not golden.size:
        return Row(entry, 0.0, True, "is empty")
    apart = np.abs(found - golden)
    apart[~np.isfinite(found)] = np.inf
    worst = np.unravel_index(int(apart.argmax()), apart.shape)
    largest, scale = float(apart[worst]), float(np.abs(golden).max())
    error = largest / scale if scale else (0.0 if largest == 0 else float("inf"))
    if error <= tolerance:
        return Row(entry, error, True)
    where = ", ".join(str(int(index)) for index in worst)
    return Row(
        entry, error, False, f"at [{where}] {found[worst]:.6g} instead of {golden[worst]:.6g}"
    )


def same(entry: str, found: object, golden: object, note: str = "") -> Row:
    """Anything made of lists, mappings, numbers and strings, equal to the last of them."""
    wrong = difference(found, golden)
    return Row(entry, None, not wrong, wrong or note)


def difference(found: object, golden: object) -> str:
    """The first difference of two values as JSON has them, and where it is; empty if none."""
    if isinstance(golden, Mapping) and isinstance(found, Mapping):
        for key, value in golden.items():
            if key not in found:
                return f"{key} is not there"
            if wrong := difference(found[key], value):
                return f"{key}: {wrong}"
        return ""
    if isinstance(golden, list) and isinstance(found, list):
        for place, (ours, theirs) in enumerate(zip(found, golden, strict=False)):
            if wrong := difference(ours, theirs):
                return f"at {place}: {wrong}"
        if len(found) != len(golden):
            return f"{len(found)} of them instead of {len(golden)}"
        return ""
    # True is 1 to Python; not here.
    if found == golden and isinstance(found, bool) == isinstance(golden, bool):
        return ""
    return f"{found!r} instead of {golden!r}"

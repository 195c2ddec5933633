"""What a runtime makes of a stage's files: something to call with numpy arrays.

`runtime.staged` builds a whole network of these, so that each stage of it may run elsewhere. What
crosses from one stage to the next is small (a picture is a megabyte of embeddings) and crosses in
numpy; what is large, the caches, stays where a stage runs and never crosses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Stage(Protocol):
    """One file without a cache, loaded."""

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """Outputs in the file's order, the caller's to keep; inputs by name.

        Floating arrays are float32 on both sides, whatever the stage computes in.
        """


class Cache(Protocol):
    """Keys and values of a stage's layers; rows of it are positions. See `runtime.kv`.

    Whatever would go past `capacity` raises KvFullError before anything is written.
    """

    @property
    def length(self) -> int:
        """Rows in use."""

    @property
    def capacity(self) -> int:
        """Rows that fit."""

    @property
    def nbytes(self) -> int:
        """Memory of the whole capacity, in bytes."""

    def check_room(self, rows: int, at: int | None = None) -> None:
        """Raise KvFullError unless rows [at, at + rows) exist; `at` defaults to the length."""

    def truncate(self, length: int) -> None:
        """Forget the rows from `length` on."""

    def remove(self, spans: Iterable[tuple[int, int]]) -> None:
        """Forget rows [start, stop) of each span; those behind move up, their keys rotated."""

    def shift(self, start: int, to: int) -> None:
        """Move the rows from `start` on so that they begin at `to`, their keys rotated."""

    def keys(self, last: int) -> NDArray[np.float32]:
        """Keys of the last rows: [layers, kv_heads, last, head_dim]. For checks."""


class CachedStage(Protocol):
    """A stage whose layers keep keys and values, of one file or several in a row."""

    def cache(self, capacity: int) -> Any:
        """An empty cache (`Cache`) for so many rows, which only this stage understands."""

    def step(self, feed: Mapping[str, Array], cache: Any, at: int, rows: int) -> Array:
        """Run the stage behind the first `at` rows of a cache, and write its `rows` new rows there.

        Args:
            feed: the file's inputs but `past` and `cache.N`; where there are several files, the
                first output of one is the first input of the next.

        Returns:
            The first output of the last file.
        """

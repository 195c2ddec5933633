"""What a runtime makes of a stage's files: something to call with numpy arrays.

`runtime.staged` builds a whole network of these, so that each stage of it may run elsewhere. What
crosses from one stage to the next is small (a picture is a megabyte of embeddings) and crosses in
numpy; what is large, the caches, stays where a stage runs and never crosses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from minicpmo_ros.runtime.api import Memory

Array = NDArray[Any]


class Stage(Protocol):
    """One file without a cache, loaded."""

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """Outputs in the file's order, the caller's to keep; inputs by name.

        Floating arrays are float32 on both sides, whatever the stage computes in.
        """


class Cache(Memory, Protocol):
    """Keys and values of a stage's layers; rows of it are positions. See `runtime.kv`."""

    def check_room(self, rows: int, at: int | None = None) -> None:
        """Raise KvFullError unless rows [at, at + rows) exist; `at` defaults to the length."""


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

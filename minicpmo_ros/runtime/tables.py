"""Tables of embeddings on disk, of which only the rows that are asked for are read. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.engines.pieces import BITS
from minicpmo_ros.runtime.int4 import BLOCK, quantise

Rows = NDArray[np.float32]
# Rows that are written together.
AT_ONCE = 4096


class Table:
    """[entries, width], memory-mapped.

    Args:
        folder, name: what `write_table` was given.

    Raises:
        EngineError: a file is missing or damaged; the message names it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._values = _mapped(folder / f"{name}.npy")
        scales = folder / f"{name}.scales.npy"
        self._scales = _mapped(scales) if scales.exists() else None

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, ids: Sequence[int]) -> Rows:
        """Rows by number: float32 [len(ids), width]."""
        index = np.asarray(ids, np.int64)
        values = self._values[index]
        if self._scales is None:
            return values.astype(np.float32)
        if values.dtype == np.uint8:  # two codes a byte, the first in the low bits
            pairs = np.stack((values & 0xF, values >> 4), axis=-1).astype(np.int8)
            values = (pairs ^ 8) - 8
        scales = self._scales[index]
        blocks = values.reshape(*scales.shape, BLOCK).astype(np.float32)
        found: Rows = (blocks * scales[..., None]).reshape(len(index), scales.shape[1] * BLOCK)
        return found


def read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a .npz file; raises EngineError if it is missing or damaged."""
    with _damage_told(file), np.load(file, allow_pickle=False) as stored:
        return dict(stored)


def write_table(folder: Path, name: str, table: Rows, precision: str) -> None:
    """Write a table for `Table`; a width that blocks do not divide stays in half precision."""
    bits = BITS[precision]
    if not bits or table.shape[1] % BLOCK:
        kind = np.float32 if precision == "fp32" else np.float16
        out = _opened(folder / f"{name}.npy", table.shape, kind)
        for start in range(0, len(table), AT_ONCE):
            out[start : start + AT_ONCE] = table[start : start + AT_ONCE]
        return
    entries, width = table.shape
    shape, of = ((entries, width // 2), np.uint8) if bits == 4 else ((entries, width), np.int8)
    codes = _opened(folder / f"{name}.npy", shape, of)
    scales = _opened(folder / f"{name}.scales.npy", (entries, width // BLOCK), np.float16)
    for start in range(0, entries, AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        found = quantise(table[rows], bits=bits)
        whole = found.codes
        if bits == 4:
            whole = ((whole[:, 0::2] & 0xF) | (whole[:, 1::2] << 4)).astype(np.uint8)
        codes[rows], scales[rows] = whole, found.scales


def _mapped(file: Path) -> Any:
    with _damage_told(file):
        return np.load(file, mmap_mode="r", allow_pickle=False)


@contextmanager
def _damage_told(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise EngineError(
            f"{file} cannot be read ({error}); remove it with `minicpmo engines clean"
            f" {file.parent.name}` and build it again"
        ) from None


def _opened(file: Path, shape: tuple[int, ...], kind: Any) -> np.memmap:
    made = np.lib.format.open_memmap(file, mode="w+", dtype=kind, shape=shape)
    with file.open("rb+") as opened:
        # The file has holes yet: to write into one where the disk is full would kill the process.
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return made

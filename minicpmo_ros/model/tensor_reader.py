"""Reads tensors of a checkpoint out of its files, whatever they are stored as.

The files are memory-mapped and read in pieces, so that reading takes little more memory than what
is read has in the dtype asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from minicpmo_ros.model.awq import CODES, SCALES, ZEROS, PackedEntry, unpack
from minicpmo_ros.model.weight_files import Entry

Progress = Callable[[int], None]
"""Called with the bytes of a file that were just read."""

# Pages of a mapped file count as ours until it is closed: it is closed after so many bytes.
PIECE_BYTES = 32 * 2**20
# Weights that are unpacked together: each takes some twenty bytes until it is in its place.
UNPACKED_WEIGHTS = 2**20


class TensorReader:
    """Reads tensors in pieces, letting go of the mapped file after each PIECE_BYTES."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        dtype: torch.dtype,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self.entries = entries
        self.dtype = dtype
        self.device = device
        self.progress = progress
        self.open_file: Path | None = None
        self.file: Any = None
        self.bytes_mapped = 0

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file = None

    def read(self, keys: tuple[str, ...], rows: slice = slice(None)) -> Tensor:
        """One parameter, or some of its rows, from the one or two tensors it is stored as."""
        if len(keys) == 1:
            return self._copy(keys[0], self.dtype, rows)
        gain, direction = (self._copy(key, torch.float32, rows) for key in keys)
        # torch.nn.utils.parametrizations.weight_norm, dim=0: one norm a row.
        norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.ndim - 1))
        return (direction * (gain / norm)).to(self.dtype)

    def _copy(self, key: str, dtype: torch.dtype, rows: slice) -> Tensor:
        entry = self.entries[key]
        if isinstance(entry, PackedEntry):
            return self._unpacked(key, entry, dtype)[rows]
        if not entry.shape:
            whole = torch.empty((), dtype=dtype, device=self.device)
            return whole.copy_(self._mapped(entry, 0).get_tensor(key))
        first, stop, _ = rows.indices(entry.shape[0])
        whole = torch.empty((stop - first, *entry.shape[1:]), dtype=dtype, device=self.device)
        row_bytes = max(entry.bytes // max(entry.shape[0], 1), 1)
        step = max(PIECE_BYTES // row_bytes, 1)
        for start in range(first, stop, step):
            piece = whole[start - first : start - first + step]
            source = self._mapped(entry, len(piece) * row_bytes).get_slice(key)
            piece.copy_(source[start : start + len(piece)])
            self.progress(len(piece) * row_bytes)
        return whole

    def _unpacked(self, key: str, entry: PackedEntry, dtype: torch.dtype) -> Tensor:
        """Some groups of inputs after the other, so that what is unpacked stays small."""
        outputs, inputs = entry.shape
        whole = torch.empty(entry.shape, dtype=dtype, device=self.device)
        groups = max(UNPACKED_WEIGHTS // (outputs * entry.group), 1)
        for first in range(0, inputs // entry.group, groups):
            stop = min(first + groups, inputs // entry.group)
            rows = slice(first * entry.group, stop * entry.group)
            spans = {CODES: rows, ZEROS: slice(first, stop), SCALES: slice(first, stop)}
            plain = unpack(*(self._part(key, entry, kind, span) for kind, span in spans.items()))
            whole[:, rows].copy_(plain.T)
        return whole

    def _part(self, key: str, entry: PackedEntry, kind: str, rows: slice) -> Tensor:
        part = entry.parts[kind]
        size = part.bytes * (rows.stop - rows.start) // part.shape[0]
        self.progress(size)
        found = self._mapped(part, size).get_slice(f"{key.removesuffix('weight')}{kind}")[rows]
        return torch.as_tensor(found)

    def _mapped(self, entry: Entry, size: int) -> Any:
        if self.open_file != entry.file or self.bytes_mapped + size > PIECE_BYTES:
            self.file = safe_open(entry.file, framework="pt").__enter__()
            self.open_file = entry.file
            self.bytes_mapped = 0
        self.bytes_mapped += size
        return self.file

"""The safetensors files of a checkpoint: which there are, and what their headers say.

What is wrong with them is told by name: half a download, a pointer of git-lfs, another format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.awq_config import INSTEAD

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,  # of packed matrices (`model.awq`)
}
# How many names a message lists of each kind; the rest is a number.
LISTED = 20


@dataclass(frozen=True)
class Entry:
    """One tensor in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path

    @property
    def parameters(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def bytes(self) -> int:
        return self.parameters * self.dtype.itemsize


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one, or the shards of its index.

    Raises:
        CheckpointError: there are none, or shards are missing; the message names them.
    """
    single = directory / SINGLE
    if single.exists():
        return [single]
    index = directory / INDEX
    if index.exists():
        try:
            names = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{index} is not an index of shards: {error!r}") from None
    else:
        names = _names_of_all_shards(directory)
    if not names:
        raise CheckpointError(_why_no_weights(directory))
    absent = [name for name in names if not (directory / name).exists()]
    if absent:
        raise CheckpointError(
            f"{directory} is half a download: {len(absent)} of {len(names)} files of weights are"
            f" not there ({listed(absent)}); `minicpmo checkpoint fetch` goes on where it stopped"
        )
    return [directory / name for name in names]


def _names_of_all_shards(directory: Path) -> list[str]:
    """What the shards must be called if one of them is there but not their index."""
    for file in directory.glob("model-*-of-*.safetensors"):
        if found := re.fullmatch(r"model-\d+-of-(\d+)\.safetensors", file.name):
            total = found[1]
            width = len(total)
            return [f"model-{n + 1:0{width}}-of-{total}.safetensors" for n in range(int(total))]
    return []


def _why_no_weights(directory: Path) -> str:
    others = [*directory.glob("*.gguf"), *directory.glob("*.bin"), *directory.glob("*.pt")]
    if others:
        found = f"has {listed([file.name for file in others])}"
        return f"{directory} {found}, but weights are read from {SINGLE} (or shards and {INDEX})"
    return (
        f"{directory} has no weights: neither {SINGLE} nor {INDEX};"
        " `minicpmo checkpoint fetch` downloads them"
    )


def read_header(file: Path) -> dict[str, Entry]:
    try:
        with safe_open(file, framework="pt") as tensors:
            slices = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118
            kinds = {key: (found.get_shape(), found.get_dtype()) for key, found in slices.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_why_unreadable(file, error)) from None
    if foreign := {key: dtype for key, (_, dtype) in kinds.items() if dtype not in DTYPES}:
        key, dtype = next(iter(foreign.items()))
        raise CheckpointError(
            f"{file}: {len(foreign)} tensors are of kinds that are not read here ({key} is"
            f" {dtype}), so the checkpoint is a quantised one; {INSTEAD}"
        )
    return {key: Entry(tuple(shape), DTYPES[dtype], file) for key, (shape, dtype) in kinds.items()}


def _why_unreadable(file: Path, error: Exception) -> str:
    """Half a download, a pointer of git-lfs, or something else altogether."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        if start == b"version ":
            return f"{file} is a git-lfs pointer, not weights; run `git lfs pull` in {file.parent}"
        header_bytes = int.from_bytes(start, "little")
        header = opened.read(header_bytes) if header_bytes < size else b""
    try:
        tensors = json.loads(header)
        ends = [found["data_offsets"][1] for key, found in tensors.items() if key != "__metadata__"]
        wanted = 8 + header_bytes + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{file} ({size} bytes) is not a safetensors file or cut short: {error}"
    return (
        f"{file} has {size} of {wanted} bytes: half a download; delete it and"
        " `minicpmo checkpoint fetch` again"
    )


def listed(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more

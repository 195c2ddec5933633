"""A checkpoint directory as it is published: what is in it, and its tensors into modules.

The files are memory-mapped and read in pieces, so that loading a stage takes little more memory
than the stage itself has in the dtype asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.layout import count_layers, is_unused, shapes

Stage = TypeVar("Stage", bound=nn.Module)
Progress = Callable[[int], None]
"""Called with the bytes of a file that were just read."""

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
WEIGHT_NORM = ".parametrizations.weight.original"
# Pages of a mapped file count as ours until it is closed: it is closed after so many bytes.
PIECE_BYTES = 32 * 2**20
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


class Checkpoint:
    """The tensors and sizes of one directory.

    Opening it reads the headers only, and holds every name and shape against config.json.

    Args:
        directory: with config.json, and model.safetensors or shards and their index.
        strict: False lets tensors pass that this network has no place for.

    Raises:
        CheckpointError: the directory is no checkpoint, half of one, or that of another model;
            the message names the files or tensors.
    """

    def __init__(self, directory: Path | str, *, strict: bool = True) -> None:
        self.directory = Path(directory)
        config = ModelConfig.load(self.directory)
        self.entries: dict[str, Entry] = {}
        for file in weight_files(self.directory):
            self.entries |= _read_header(file)
        if vision_layers := count_layers(self.entries, "vpm.encoder.layers."):
            config = replace(config, vision=replace(config.vision, layers=vision_layers))
        self.config = config
        self._check(strict)

    def keys(self) -> list[str]:
        return list(self.entries)

    def bytes_below(self, *prefixes: str) -> int:
        """What loading these parts will read, for a progress bar."""
        return sum(
            entry.bytes
            for key, entry in self.entries.items()
            if key.startswith(prefixes) and not is_unused(key)
        )

    def build(
        self,
        make: Callable[[], Stage],
        prefix: str | Mapping[str, str] = "",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        progress: Progress = lambda count: None,
    ) -> Stage:
        """Construct a stage without memory for its parameters, then `load` it.

        Tables that a stage computes in its constructor (buffers with persistent=False) must name
        their device there, `device="cpu"`, for they would otherwise have no values.
        """
        with torch.device("meta"):
            stage = make()
        return self.load(stage, prefix, dtype, device, progress)

    def load(
        self,
        stage: Stage,
        prefix: str | Mapping[str, str] = "",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        progress: Progress = lambda count: None,
    ) -> Stage:
        """Give a stage its parameters: new tensors of `dtype` on `device`, nothing shared.

        Args:
            stage: whose parameters bear the names in the files, below a prefix. A weight-normed
                tensor, stored as gain and direction, goes to the parameter `weight`.
            prefix: of the names in the files ("llm."), none where the stage has whole names
                ("vpm.", "resampler."), or for each prefix of the stage's names that of the files'
                ({"embed.": "llm.model.embed_tokens."}).

        Returns:
            The stage, without gradients and in evaluation mode.

        Raises:
            CheckpointError: with the names that are missing, left over, or of another shape.
        """
        prefixes = {"": prefix} if isinstance(prefix, str) else dict(prefix)
        targets = stage.state_dict(keep_vars=True)
        sources = {name: self._sources(_renamed(name, prefixes)) for name in targets}

        missing = [_renamed(name, prefixes) for name, keys in sources.items() if not keys]
        misshapen = {
            keys[-1]: (self.entries[keys[-1]].shape, tuple(targets[name].shape))
            for name, keys in sources.items()
            if keys and self.entries[keys[-1]].shape != tuple(targets[name].shape)
        }
        used = {key for keys in sources.values() for key in keys}
        # What the stage answers for: below its prefixes or, without one, in its parts.
        claimed = tuple(filter(None, prefixes.values())) or tuple(
            {f"{name.split('.')[0]}." for name in targets}
        )
        unexpected = [
            key
            for key in self.entries
            if key.startswith(claimed) and key not in used and not is_unused(key)
        ]
        if problems := _problems(missing, unexpected, misshapen):
            raise CheckpointError(
                f"{self.directory} does not fit {type(stage).__name__}: {problems}"
            )

        with _Reader(self.entries, dtype, torch.device(device), progress) as reader:
            state = {name: reader.read(keys) for name, keys in sources.items()}
        stage.load_state_dict(state, assign=True)
        empty = [name for name, buffer in stage.named_buffers() if buffer.is_meta]
        if empty:
            raise CheckpointError(
                f"{type(stage).__name__} was built without memory, and its tables"
                f" {', '.join(empty)} have no values; build them with device='cpu'"
            )
        return stage.to(device=device).requires_grad_(False).eval()

    def read(self, name: str, progress: Progress = lambda count: None) -> Tensor:
        """One parameter in float32, by the name it has in the files; see `load`.

        Raises:
            CheckpointError: there is none of this name.
        """
        keys = self._sources(name)
        if not keys:
            raise CheckpointError(f"{self.directory} has no tensor {name}")
        with _Reader(self.entries, torch.float32, torch.device("cpu"), progress) as reader:
            return reader.read(keys)

    def _sources(self, name: str) -> tuple[str, ...]:
        """The tensors that make up one parameter: itself, gain and direction, or none."""
        if name in self.entries:
            return (name,)
        normed = tuple(f"{name.removesuffix('.weight')}{WEIGHT_NORM}{part}" for part in (0, 1))
        return normed if all(key in self.entries for key in normed) else ()

    def _check(self, strict: bool) -> None:
        wanted = shapes(self.config)
        missing = [key for key in wanted if key not in self.entries and not is_unused(key)]
        unexpected = [key for key in self.entries if key not in wanted and not is_unused(key)]
        misshapen = {
            key: (entry.shape, wanted[key])
            for key, entry in self.entries.items()
            if key in wanted and entry.shape != wanted[key]
        }
        problems = _problems(missing, unexpected if strict else [], misshapen)
        if problems:
            raise CheckpointError(
                f"{self.directory}: the weights are not what its config.json describes: {problems}"
            )


class _Reader:
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

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file = None

    def read(self, keys: tuple[str, ...]) -> Tensor:
        """One parameter from the one or two tensors that it is stored as."""
        if len(keys) == 1:
            return self._copy(keys[0], self.dtype)
        gain, direction = (self._copy(key, torch.float32) for key in keys)
        # torch.nn.utils.parametrizations.weight_norm, dim=0: one norm a row.
        norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.ndim - 1))
        return (direction * (gain / norm)).to(self.dtype)

    def _copy(self, key: str, dtype: torch.dtype) -> Tensor:
        entry = self.entries[key]
        whole = torch.empty(entry.shape, dtype=dtype, device=self.device)
        if not entry.shape:
            return whole.copy_(self._mapped(entry, 0).get_tensor(key))
        row_bytes = max(entry.bytes // max(entry.shape[0], 1), 1)
        rows = max(PIECE_BYTES // row_bytes, 1)
        for start in range(0, entry.shape[0], rows):
            piece = whole[start : start + rows]
            source = self._mapped(entry, len(piece) * row_bytes).get_slice(key)
            piece.copy_(source[start : start + rows])
            self.progress(len(piece) * row_bytes)
        return whole

    def _mapped(self, entry: Entry, size: int) -> Any:
        if self.open_file != entry.file or self.bytes_mapped + size > PIECE_BYTES:
            self.file = safe_open(entry.file, framework="pt").__enter__()
            self.open_file = entry.file
            self.bytes_mapped = 0
        self.bytes_mapped += size
        return self.file


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
            f" not there ({_listed(absent)}); `minicpmo checkpoint fetch` goes on where it stopped"
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
        found = f"has {_listed([file.name for file in others])}"
        return f"{directory} {found}, but weights are read from {SINGLE} (or shards and {INDEX})"
    return (
        f"{directory} has no weights: neither {SINGLE} nor {INDEX};"
        " `minicpmo checkpoint fetch` downloads them"
    )


def _read_header(file: Path) -> dict[str, Entry]:
    try:
        with safe_open(file, framework="pt") as tensors:
            slices = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118
            kinds = {key: (found.get_shape(), found.get_dtype()) for key, found in slices.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_why_unreadable(file, error)) from None
    if foreign := {key: dtype for key, (_, dtype) in kinds.items() if dtype not in DTYPES}:
        key, dtype = next(iter(foreign.items()))
        raise CheckpointError(
            f"{file}: {len(foreign)} tensors are not floating point ({key} is {dtype}), so the"
            " checkpoint is a quantised one; the bf16 checkpoint is needed"
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


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """A stage's name as the files have it; the longest prefix that fits counts."""
    for ours in sorted(prefixes, key=len, reverse=True):
        if name.startswith(ours):
            return prefixes[ours] + name[len(ours) :]
    return name


def _problems(
    missing: list[str],
    unexpected: list[str],
    misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> str:
    """One sentence for each kind of disagreement, with names; empty if there is none."""
    wrong = [
        f"{key} is {list(found)} instead of {list(wanted)}"
        for key, (found, wanted) in misshapen.items()
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
    return "; ".join(f"{len(names)} {kind}: {_listed(names)}" for kind, names in kinds if names)


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more

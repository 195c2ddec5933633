"""A checkpoint directory as it is published: what is in it, and its tensors into modules.

Loading a stage takes little more memory than the stage itself has in the dtype asked for. Matrices
that AutoAWQ has packed into four bits are plain ones to whoever reads them here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.awq import joined
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.layout import count_layers, is_unused, shapes
from minicpmo_ros.model.sums import check_sums
from minicpmo_ros.model.tensor_reader import Progress, TensorReader
from minicpmo_ros.model.weight_files import Entry, listed, read_header, weight_files

Stage = TypeVar("Stage", bound=nn.Module)

WEIGHT_NORM = ".parametrizations.weight.original"


class Checkpoint:
    """The tensors and sizes of one directory.

    Opening it reads the headers only, and holds every name and shape against config.json. Where
    there is a SHA256SUMS, all that it lists is read and held against it (`model.sums`).

    Args:
        directory: with config.json, and model.safetensors or shards and their index.
        strict: False lets tensors pass that this network has no place for.

    Raises:
        CheckpointError: the directory is no checkpoint, half of one, or that of another model;
            the message names the files or tensors.
    """

    def __init__(self, directory: Path | str, *, strict: bool = True) -> None:
        self.directory = Path(directory)
        check_sums(self.directory)
        config = ModelConfig.load(self.directory)
        stored: dict[str, Entry] = {}
        for file in weight_files(self.directory):
            stored |= read_header(file)
        self.entries = joined(stored, config.awq)
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

        with TensorReader(self.entries, dtype, torch.device(device), progress) as reader:
            state = {name: reader.read(keys) for name, keys in sources.items()}
        stage.load_state_dict(state, assign=True)
        empty = [name for name, buffer in stage.named_buffers() if buffer.is_meta]
        if empty:
            raise CheckpointError(
                f"{type(stage).__name__} was built without memory, and its tables"
                f" {', '.join(empty)} have no values; build them with device='cpu'"
            )
        return stage.to(device=device).requires_grad_(False).eval()

    def read(
        self,
        name: str,
        progress: Progress = lambda count: None,
        rows: slice = slice(None),
    ) -> Tensor:
        """One parameter in float32, by the name it has in the files; see `load`.

        rows: those wanted, of a parameter that has several; all by default.

        Raises:
            CheckpointError: there is none of this name.
        """
        keys = self._sources(name)
        if not keys:
            raise CheckpointError(f"{self.directory} has no tensor {name}")
        with TensorReader(self.entries, torch.float32, torch.device("cpu"), progress) as reader:
            return reader.read(keys, rows)

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
    return "; ".join(f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds if names)

"""Finds the factors of a `Calibration`: layer by layer, on what the model reads in conversations.

For each group of matrices behind one source, factors are a power of how large their inputs are.
Eleven exponents are tried, on the way that an engine is built: scaled, rounded to four bits with
the mean squares of the scaled inputs, and unscaled again. The one whose outputs are nearest to
those of the plain matrices is kept; the first of them, 0, is no scaling at all. Some rows of the
matrices and some of the tokens stand for all: errors of rows are independent of each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minicpmo_ros.model.config import LlmConfig
from minicpmo_ros.model.decoder import Layer
from minicpmo_ros.runtime.export.calibration import NORM, Calibration, GroupScale, quantised
from minicpmo_ros.runtime.export.layerwise import (
    CalibrationSequence,
    Progress,
    checked,
    load_layer,
    normed,
    through,
    write_atomically,
)
from minicpmo_ros.runtime.int4 import can_quantise, quantise

if TYPE_CHECKING:
    from minicpmo_ros.runtime.export.writer import Read

Array = NDArray[np.float32]
EXPONENTS = tuple(step / 10 for step in range(11))
ROWS = 512
TOKENS = 1024
# Mean squares below this share of their mean are taken for this share.
FLOOR = 1e-4
GOES_ON = "quantised"


def calibrate(
    read: Read,
    config: LlmConfig,
    sequences: Sequence[CalibrationSequence],
    file: Path,
    *,
    identity: str,
    progress: Progress = lambda done, of: None,
) -> Calibration:
    """The factors of all layers, written to `file`, or read from it if they are there.

    What was found is saved after each layer, beside `file`: a run that was cut off goes on there.

    Args:
        read: gives weights in float32 by their names in the checkpoint.
        identity: of the checkpoint; of another one nothing is gone on with.

    Raises:
        EngineError: the sequences are of no use, or the file is no calibration.
    """
    hidden = checked(sequences, config)
    stamp = _stamp(identity, config, hidden)
    if file.exists() and (whole := Calibration.load(file)).identity == stamp:
        return whole
    begun = file.with_name(f"{file.stem}.begun.npz")
    found = Calibration(stamp, config.heads, config.kv_heads, ())
    found, hidden = _gone_on_with(begun, found, hidden)
    for index in range(len(found.layers), config.layers):
        progress(index, config.layers)
        layer = load_layer(read, config, index)
        inputs = _Inputs(layer, hidden)
        plain = [through(layer, config, one) for one in hidden]
        inputs.stop()
        one = _search(layer, inputs, found)
        found = Calibration(stamp, config.heads, config.kv_heads, (*found.layers, one))
        if GOES_ON == "quantised":
            del layer
            layer = load_layer(quantised(found.scaled(read), found.importance), config, index)
            hidden = [through(layer, config, one) for one in hidden]
        else:
            hidden = plain
        state = {f"hidden.{n}": one.numpy() for n, one in enumerate(hidden)}
        write_atomically(begun, found.arrays() | state)
    progress(config.layers, config.layers)
    last = torch.cat([normed(one, read(NORM), config) for one in hidden])
    found = Calibration(
        stamp, config.heads, config.kv_heads, found.layers, last.square().mean(0).numpy()
    )
    found.save(file)
    begun.unlink(missing_ok=True)
    return found


def _stamp(identity: str, config: LlmConfig, hidden: Sequence[Tensor]) -> str:
    """Names checkpoint and sequences."""
    digest = hashlib.sha256(repr(config).encode())
    for one in hidden:
        digest.update(one.numpy().tobytes())
    return f"{identity}/{digest.hexdigest()[:16]}"


def _gone_on_with(
    begun: Path, found: Calibration, hidden: list[Tensor]
) -> tuple[Calibration, list[Tensor]]:
    """What was found before, and how far the sequences are; what was given if there is nothing."""
    try:
        with np.load(begun) as stored:
            arrays = dict(stored)
        before = Calibration.of(arrays)
        states = [torch.from_numpy(arrays[f"hidden.{n}"]) for n in range(len(hidden))]
    except (OSError, ValueError, KeyError, EOFError):
        return found, hidden
    return (before, states) if before.identity == found.identity else (found, hidden)


class _Inputs:
    """What enters the matrices of each group: some of the tokens, and mean squares of all.

    What goes back to the residual stream counts for less in tokens whose stream is large: there,
    the same error is a smaller part of it.
    """

    WATCHED = {
        "attention": "self_attn.q_proj",
        "output": "self_attn.o_proj",
        "mlp": "mlp.gate_proj",
        "inner": "mlp.down_proj",
    }

    def __init__(self, layer: Layer, hidden: Sequence[Tensor]) -> None:
        stream = torch.cat([one.square().mean(1) for one in hidden])
        self._weight = {True: 1 / stream.clamp_min(1e-12), False: torch.ones_like(stream)}
        self._kept = torch.linspace(0, len(stream) - 1, min(TOKENS, len(stream))).long().unique()
        self._parts: dict[str, list[Tensor]] = {group: [] for group in self.WATCHED}
        self._seen = dict.fromkeys(self.WATCHED, 0)
        self._sums: dict[str, Tensor] = {}
        self._hooks = [
            layer.get_submodule(name).register_forward_pre_hook(self._hook(group))
            for group, name in self.WATCHED.items()
        ]

    def _hook(self, group: str) -> Callable[..., None]:
        def note(module: torch.nn.Module, given: tuple[Tensor, ...]) -> None:
            x, first = given[0], self._seen[group]
            weight = self.weight(group)[first : first + len(x)]
            total = (x.square() * weight.unsqueeze(1)).sum(0)
            self._sums[group] = self._sums[group] + total if group in self._sums else total
            kept = self._kept[(self._kept >= first) & (self._kept < first + len(x))] - first
            self._parts[group].append(x[kept])
            self._seen[group] = first + len(x)

        return note

    def stop(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def weight(self, group: str) -> Tensor:
        """Of all tokens, by how much their errors count."""
        return self._weight[group in ("output", "inner", "mlp")]

    def of(self, group: str) -> Array:
        """float32 [tokens kept, inputs], each times the root of how much it counts."""
        root = self.weight(group)[self._kept].sqrt()
        return (torch.cat(self._parts[group]) * root.unsqueeze(1)).numpy()

    def squares(self, group: str) -> Array:
        """float32 [inputs]."""
        return (self._sums[group] / self.weight(group).sum()).numpy()

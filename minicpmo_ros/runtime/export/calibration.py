"""Scales that make the language model's matrices easier to keep in four bits.

A few channels carry large values. Where they enter a matrix, its weights count for more than all
others, yet in four bits they are rounded like them. So their weights are made larger before
rounding, and what feeds them smaller by the same factor: the gain of the norm in front, the rows
of `up_proj` in front of `down_proj`, those of `v_proj` in front of `o_proj`. Without rounding
nothing changes. The idea is that of AWQ (Lin et al. 2023); `calibrate` finds the factors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.config import LlmConfig
from minicpmo_ros.runtime.int4 import can_quantise, quantise

if TYPE_CHECKING:
    from minicpmo_ros.runtime.export.writer import Read

Array = NDArray[np.float32]
Importance = Callable[[str], "Array | None"]
"""Mean squares of what enters a matrix, by its name in the checkpoint; None: not known."""

# What feeds the matrices of each group, and those matrices.
FED_BY = {
    "attention": "input_layernorm",
    "output": "self_attn.v_proj",
    "mlp": "post_attention_layernorm",
    "inner": "mlp.up_proj",
}
GROUPS = {
    "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "mlp": ("mlp.gate_proj", "mlp.up_proj"),
    "inner": ("mlp.down_proj",),
}
HEAD, NORM = "llm.lm_head.weight", "llm.model.norm.weight"
_NAME = re.compile(r"llm\.model\.layers\.(\d+)\.(.+)\.weight")
FORMAT = 1


@dataclass(frozen=True, eq=False)
class GroupScale:
    """What was found for the matrices of a group.

    scale: factors of their inputs, float32: [inputs], but of "output", whose inputs are the heads
    of a group of queries after the other and all stem from one row of v_proj, [rows of v_proj].
    squares: mean squares of the inputs as they are without it, float32 [inputs].
    """

    scale: Array
    squares: Array


@dataclass(frozen=True, eq=False)
class Calibration:
    """Factors and mean squares of the layers from the first on; all of them once it is whole.

    identity: of the checkpoint they were found for, as the caller names it. head_squares: mean
    squares of what enters the head, float32 [hidden].
    """

    identity: str
    heads: int
    kv_heads: int
    layers: tuple[Mapping[str, GroupScale], ...]
    head_squares: Array | None = None

    def scaled(self, read: Read) -> Read:
        """Reads weights with the factors in them; names are those of the checkpoint."""

        def found(name: str) -> np.ndarray:
            weights = read(name)
            inputs, rows = self._factors(name)
            if inputs is not None:
                weights = weights * inputs
            if rows is not None:
                weights = weights / rows.reshape(-1, *[1] * (weights.ndim - 1))
            return weights

        return found

    def importance(self, name: str) -> Array | None:
        """What `quantise` takes for a matrix that `scaled` reads, or None for one unknown here."""
        if name == HEAD:
            return self.head_squares
        found = _NAME.fullmatch(name)
        if found is None or int(found[1]) >= len(self.layers):
            return None
        for group, modules in GROUPS.items():
            if found[2] in modules:
                factor = self._inputs(group, int(found[1]))
                squares = self.layers[int(found[1])][group].squares
                return (squares / np.square(factor)).astype(np.float32)
        return None

    def _factors(self, name: str) -> tuple[Array | None, Array | None]:
        """Of a weight's inputs, and what its rows are divided by."""
        found = _NAME.fullmatch(name)
        if found is None or int(found[1]) >= len(self.layers):
            return None, None
        layer, module = int(found[1]), found[2]
        inputs = next((self._inputs(g, layer) for g, m in GROUPS.items() if module in m), None)
        rows = next((self.layers[layer][g].scale for g, m in FED_BY.items() if module == m), None)
        return inputs, rows

    def _inputs(self, group: str, layer: int) -> Array:
        scale = self.layers[layer][group].scale
        return self.to_heads(scale) if group == "output" else scale

    def to_heads(self, rows: Array) -> Array:
        """Factors of v_proj's rows as those of o_proj's inputs."""
        shared = rows.reshape(self.kv_heads, 1, -1)
        return np.repeat(shared, self.heads // self.kv_heads, axis=1).reshape(-1)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name, as `load` reads it."""
        found: dict[str, np.ndarray] = {
            "format": np.array(FORMAT),
            "identity": np.array(self.identity),
            "heads": np.array([self.heads, self.kv_heads, len(self.layers)]),
        }
        if self.head_squares is not None:
            found["head_squares"] = self.head_squares
        for index, layer in enumerate(self.layers):
            for group, one in layer.items():
                found[f"{index}.{group}.scale"] = one.scale
                found[f"{index}.{group}.squares"] = one.squares
        return found

    def save(self, file: Path) -> None:
        """Write a .npz file, or nothing if that is cut off."""
        part = file.with_name(f"{file.name}.part")
        with part.open("wb") as out:
            np.savez(out, **self.arrays())  # type: ignore[arg-type]
        part.replace(file)

    @classmethod
    def load(cls, file: Path) -> Calibration:
        """Read what `save` wrote; raises EngineError for anything else."""
        try:
            with np.load(file) as stored:
                return cls.of(dict(stored))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise EngineError(
                f"{file} is no calibration that can be read ({error}); delete it and calibrate anew"
            ) from None

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Calibration:
        """From `arrays`; raises KeyError, ValueError."""
        if int(arrays["format"]) != FORMAT:
            raise ValueError(f"format {arrays['format']} instead of {FORMAT}")
        heads, kv_heads, layers = (int(number) for number in arrays["heads"])
        return cls(
            str(arrays["identity"]),
            heads,
            kv_heads,
            tuple(
                {
                    group: GroupScale(
                        arrays[f"{index}.{group}.scale"], arrays[f"{index}.{group}.squares"]
                    )
                    for group in GROUPS
                }
                for index in range(layers)
            ),
            arrays.get("head_squares"),
        )

    def check_fits(self, config: LlmConfig) -> None:
        """Raise EngineError unless it is whole and of a network of these sizes."""
        widths = {"attention": config.hidden, "output": config.kv_heads * config.head_dim}
        widths |= {"mlp": config.hidden, "inner": config.ffn}
        fits = (self.heads, self.kv_heads, len(self.layers)) == (
            config.heads,
            config.kv_heads,
            config.layers,
        ) and all(len(layer[g].scale) == width for layer in self.layers for g, width in widths.items())
        if not fits or self.head_squares is None:
            raise EngineError(
                f"the calibration is that of {self.identity or 'another network'}, not of one with"
                f" {config.layers} layers of {config.hidden}, or not whole; calibrate anew"
            )


def quantised(read: Read, importance: Importance = lambda name: None, bits: int = 4) -> Read:
    """Reads weights as they are once matrices were rounded to so many bits and back."""

    def found(name: str) -> np.ndarray:
        weights = read(name)
        is_matrix = name.endswith("_proj.weight") or name == HEAD
        if not (is_matrix and can_quantise(weights.shape)):
            return weights
        return quantise(weights, importance(name), bits).weights()

    return found

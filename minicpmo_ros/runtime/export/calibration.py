"""Scales that make the language model's matrices easier to keep in four bits.

A few channels carry large values. Where they enter a matrix, its weights count for more than all
others, yet in four bits they are rounded like them. So their weights are made larger before
rounding, and what feeds them smaller by the same factor: the gain of the norm in front, the rows
of `up_proj` in front of `down_proj`, those of `v_proj` in front of `o_proj`. Without rounding
nothing changes. The idea is that of AWQ (Lin et al. 2023); `calibrate` finds the factors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.part_configs import LlmConfig
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


def spread(scale: Array, group: str, config: LlmConfig) -> Array:
    """A group's factors, one for each input of its matrices."""
    if group != "output":
        return scale
    # Query heads that share a head of keys and values stand behind each other.
    shared = scale.reshape(config.kv_heads, 1, config.head_dim)
    return np.repeat(shared, config.heads // config.kv_heads, axis=1).reshape(-1)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Factors and mean squares of the layers from the first on; all of them once it is whole.

    made_of: names the checkpoint and the conversations. head_squares: mean squares of what enters
    the head, float32 [hidden].
    """

    made_of: str
    config: LlmConfig
    layers: tuple[Mapping[str, GroupScale], ...] = ()
    head_squares: Array | None = None

    def scaled(self, read: Read) -> Read:
        """Reads weights with the factors in them; names are those of the checkpoint."""

        def found(name: str) -> np.ndarray:
            weights = read(name)
            layer, module = self._place(name)
            for group, modules in GROUPS.items():
                if layer is not None and module in modules:
                    weights = weights * spread(layer[group].scale, group, self.config)
                if layer is not None and module == FED_BY[group]:
                    rows = layer[group].scale
                    weights = weights / rows.reshape(-1, *[1] * (weights.ndim - 1))
            return weights

        return found

    def importance(self, name: str) -> Array | None:
        """Mean squares of what enters a matrix that `scaled` reads: what `quantise` takes. None
        where they are not known."""
        if name == HEAD:
            return self.head_squares
        layer, module = self._place(name)
        for group, modules in GROUPS.items():
            if layer is not None and module in modules:
                factors = spread(layer[group].scale, group, self.config)
                return (layer[group].squares / np.square(factors)).astype(np.float32)
        return None

    def _place(self, name: str) -> tuple[Mapping[str, GroupScale] | None, str]:
        """What was found for the layer of a weight, and the weight's name in it."""
        found = _NAME.fullmatch(name)
        if found is None or int(found[1]) >= len(self.layers):
            return None, ""
        return self.layers[int(found[1])], found[2]

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name, as `of` takes it."""
        about = {"format": FORMAT, "made_of": self.made_of, "config": asdict(self.config)}
        found = {"about": np.array(json.dumps(about)), "layers": np.array(len(self.layers))}
        if self.head_squares is not None:
            found["head_squares"] = self.head_squares
        for index, layer in enumerate(self.layers):
            for group, one in layer.items():
                found[f"{index}.{group}.scale"] = one.scale
                found[f"{index}.{group}.squares"] = one.squares
        return found

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Calibration:
        """From `arrays`; raises KeyError, TypeError or ValueError for anything else."""
        about = json.loads(str(arrays["about"]))
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']} instead of {FORMAT}")

        def layer(index: int) -> dict[str, GroupScale]:
            names = {group: f"{index}.{group}" for group in GROUPS}
            return {
                group: GroupScale(arrays[f"{name}.scale"], arrays[f"{name}.squares"])
                for group, name in names.items()
            }

        layers = tuple(layer(index) for index in range(int(arrays["layers"])))
        config = LlmConfig(**about["config"])
        return cls(about["made_of"], config, layers, arrays.get("head_squares"))

    def save(self, file: Path) -> None:
        """Write a .npz file, whole or not at all."""
        write_npz(file, self.arrays())

    @classmethod
    def load(cls, file: Path) -> Calibration:
        """Read what `save` wrote; raises EngineError for anything else."""
        try:
            return cls.of(read_npz(file))
        except UNREADABLE as error:
            raise EngineError(
                f"{file} is no calibration that can be read ({error}); delete it and calibrate anew"
            ) from None

    def check_fits(self, config: LlmConfig) -> None:
        """Raise EngineError unless it is whole and of a network of these sizes."""
        if config != self.config:
            raise EngineError(
                f"the calibration is of {self.config}, the network is {config}; calibrate anew"
            )
        if len(self.layers) != config.layers or self.head_squares is None:
            raise EngineError(
                f"the calibration has {len(self.layers)} of {config.layers} layers; go on with it"
            )


# What a file raises that is not there, not whole, or something else.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile)


def write_npz(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A .npz file, whole or not at all.

    Raises:
        EngineError: it cannot be written, as where the disk is full.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") as out:
            np.savez(out, **arrays)  # type: ignore[arg-type]
        part.replace(file)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise EngineError(f"{file} cannot be written: {error.strerror or error}") from None


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """All arrays of it; raises UNREADABLE."""
    with np.load(file, allow_pickle=False) as stored:
        return dict(stored)


def quantised(read: Read, importance: Importance = lambda name: None, bits: int = 4) -> Read:
    """Reads weights as they are once matrices were rounded to so many bits and back.

    bits: 4, 8, or 16, half precision, which matrices have as well that blocks do not divide; 0:
    nothing is rounded.
    """

    def found(name: str) -> np.ndarray:
        weights = read(name)
        if not bits or not (name.endswith("_proj.weight") or name == HEAD):
            return weights
        if bits == 16 or not can_quantise(weights.shape):
            return weights.astype(np.float16).astype(np.float32)
        return quantise(weights, importance(name), bits).weights()

    return found

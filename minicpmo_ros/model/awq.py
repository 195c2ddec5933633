"""Matrices as AutoAWQ packs them, and back into plain weights.

A linear layer X has, in place of X.weight [outputs, inputs]:

- X.qweight, int32 [inputs, outputs / 8]: codes of four bits, eight outputs in a number;
- X.qzeros, int32 [inputs / group, outputs / 8]: zero points, packed likewise;
- X.scales [inputs / group, outputs].

A weight is (code - zero point) * scale. The checkpoint knows such a layer as X.weight all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.awq_config import AwqConfig
from minicpmo_ros.model.weight_files import Entry, listed

CODES, ZEROS, SCALES = "qweight", "qzeros", "scales"
IN_ONE = 8
"""Codes in a number of 32 bits."""
# Output j of eight lies this many bits from the right: AutoAWQ packs evens before odds.
SHIFTS = tuple(4 * place for place in (0, 4, 1, 5, 2, 6, 3, 7))


@dataclass(frozen=True)
class PackedEntry(Entry):
    """A matrix that is stored as three tensors, which may lie in files of their own.

    shape: that of the plain matrix. dtype: that of the scales.
    """

    group: int
    parts: Mapping[str, Entry]
    """CODES, ZEROS and SCALES."""

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts.values())


def joined(entries: Mapping[str, Entry], config: AwqConfig | None) -> dict[str, Entry]:
    """The entries of the files, with one for each packed matrix in place of its three.

    Args:
        config: None where config.json says that nothing is packed.

    Raises:
        CheckpointError: whole numbers that are no part of a packed matrix, a part that is missing
            or of another shape, a matrix that should be plain or is there twice.
    """
    found = dict(entries)
    packed = [key.removesuffix(CODES) for key in entries if key.endswith(f".{CODES}")]
    if packed and config is None:
        raise CheckpointError(
            f"{packed[0]}{CODES} is a packed matrix, but config.json has no quantization_config;"
            " take the config.json that was published with these weights"
        )
    for module in packed:
        assert config is not None
        parts = {kind: found.pop(module + kind, None) for kind in (CODES, ZEROS, SCALES)}
        if f"{module}weight" in found:
            raise CheckpointError(f"{module}weight is there twice, plain and packed")
        if name := config.leaves(module.removesuffix(".")):
            raise CheckpointError(
                f"{module}{CODES} is a packed matrix, but config.json says that {name!r} is not"
                " converted (modules_to_not_convert)"
            )
        found[f"{module}weight"] = _entry(module, parts, config.group)
    if whole := [key for key, entry in found.items() if not entry.dtype.is_floating_point]:
        raise CheckpointError(
            f"{len(whole)} tensors of whole numbers belong to no packed matrix: {listed(whole)}"
        )
    if config is not None and not packed:
        raise CheckpointError(
            "config.json says that the weights are packed (quantization_config), but none of them"
            " is; take the config.json that was published with these weights"
        )
    return found


def _entry(module: str, parts: Mapping[str, Entry | None], group: int) -> PackedEntry:
    there = {kind: part for kind, part in parts.items() if part is not None}
    if absent := [module + kind for kind in parts if kind not in there]:
        raise CheckpointError(
            f"{module}{CODES} is a packed matrix, but {listed(absent)} is missing"
        )
    scales, shape = there[SCALES], there[CODES].shape
    if len(shape) != 2 or shape[0] % group:
        raise CheckpointError(
            f"{module}{CODES} is {list(shape)}: not [inputs, outputs / {IN_ONE}] with inputs in"
            f" groups of {group}"
        )
    inputs, outputs = shape[0], shape[1] * IN_ONE
    wanted = {ZEROS: (inputs // group, shape[1]), SCALES: (inputs // group, outputs)}
    for kind, right in wanted.items():
        if there[kind].shape != right:
            raise CheckpointError(
                f"{module}{kind} is {list(there[kind].shape)} instead of {list(right)}, which"
                f" {CODES} of {list(shape)} and groups of {group} need"
            )
    for kind, is_float in ((CODES, False), (ZEROS, False), (SCALES, True)):
        if there[kind].dtype.is_floating_point != is_float:
            right_dtype = "floating point" if is_float else "int32"
            raise CheckpointError(f"{module}{kind} is {there[kind].dtype}, not {right_dtype}")
    return PackedEntry((outputs, inputs), scales.dtype, scales.file, group, there)


def unpack(codes: Tensor, zeros: Tensor, scales: Tensor) -> Tensor:
    """Plain weights, float32 [inputs, outputs], of some whole groups of inputs.

    Args:
        codes: int32 [inputs, outputs / 8].
        zeros: int32 [groups, outputs / 8].
        scales: [groups, outputs].
    """
    groups = zeros.shape[0]
    centred = nibbles(codes).view(groups, -1, scales.shape[1]) - nibbles(zeros).unsqueeze(1)
    return (centred * scales.to(torch.float32).unsqueeze(1)).flatten(0, 1)


def nibbles(packed: Tensor) -> Tensor:
    """int32 [rows, outputs / 8] to int32 [rows, outputs], each 0 to 15."""
    shifts = torch.tensor(SHIFTS, dtype=torch.int32)
    return ((packed.unsqueeze(-1) >> shifts) & 0xF).flatten(1)

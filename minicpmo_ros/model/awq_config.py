"""What config.json says of a checkpoint whose matrices AutoAWQ has packed into four bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minicpmo_ros.errors import CheckpointError

INSTEAD = (
    "what is read are the published weights in bf16, and AWQ's of quant_method 'awq', version"
    " 'gemm', four bits with zero points"
)


@dataclass(frozen=True)
class AwqConfig:
    """AutoAWQ's packing `gemm`.

    group: so many inputs share a scale and a zero point. plain: modules that were left as they
    are, by their names or parts of them ("vpm", "llm.lm_head"); others may be plain as well.
    """

    group: int
    plain: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, found: Any) -> AwqConfig:
        """The object `quantization_config`.

        Raises:
            CheckpointError: another method, packing or number of bits; the message names it.
        """
        if not isinstance(found, Mapping):
            raise CheckpointError(f"config.json: quantization_config is {found!r}, not an object")
        method = found.get("quant_method", "an unknown method")
        if method != "awq":
            raise CheckpointError(
                f"config.json is that of a checkpoint quantised with {method}; {INSTEAD}"
            )
        for name, wanted in (("bits", 4), ("zero_point", True), ("version", "gemm")):
            value = found.get(name)
            value = value.lower() if isinstance(value, str) else value
            if value != wanted:
                raise CheckpointError(
                    f"config.json: quantization_config.{name} is {value!r}, not {wanted!r};"
                    f" {INSTEAD}"
                )
        group = found.get("group_size")
        if not isinstance(group, int) or isinstance(group, bool) or group < 1:
            raise CheckpointError(
                f"config.json: quantization_config.group_size is {group!r}, not a number of inputs"
                " above 0 (128, as published)"
            )
        plain = found.get("modules_to_not_convert") or ()
        if isinstance(plain, str) or not all(isinstance(name, str) for name in plain):
            raise CheckpointError(
                f"config.json: quantization_config.modules_to_not_convert is {plain!r}, not a list"
                " of names"
            )
        return cls(group, tuple(plain))

    def leaves(self, module: str) -> str | None:
        """The name in `plain` by which a module is left as it is, or None."""
        return next((name for name in self.plain if f".{name}." in f".{module}."), None)

"""Typed fields of a checkpoint's JSON files; what is of another type is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minicpmo_ros.errors import CheckpointError

Json = Mapping[str, Any]


def json_part(config: Json, name: str, absent: Json) -> Json:
    """The named inner object; `absent` stands in where the whole object is left out."""
    part = config.get(name)
    if part is None:
        part = absent
    if not isinstance(part, Mapping):
        raise CheckpointError(f"config.json: {name} is {part!r}, not an object")
    return part


def json_int(config: Json, name: str, default: int | None = None) -> int:
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"config.json: {name} is {value!r}, not a whole number")
    return value


def json_bool(config: Json, name: str, default: bool) -> bool:
    value = config.get(name, default)
    if not isinstance(value, bool):
        raise CheckpointError(f"config.json: {name} is {value!r}, neither true nor false")
    return value


def json_float(config: Json, name: str, default: float | None = None) -> float:
    value = config.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise CheckpointError(f"config.json: {name} is {value!r}, not a number")
    return float(value)


def read_json(path: Path) -> Json | None:
    """The object in a JSON file, or None where there is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path} holds {type(found).__name__}, not an object")
    return found

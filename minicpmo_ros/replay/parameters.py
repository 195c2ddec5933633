"""Parameters of the omni node for a replay: a YAML file as nodes take it, and single values."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import yaml

from minicpmo_ros.brains.build import OmniSettings
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.nodes import parameters
from minicpmo_ros.nodes.parameter import Value

NODE = "omni"
# What the recording decides, and what a replay cannot repeat.
NOT_OURS = ("image_transport", "publish_timings")


def omni_parameters(file: Path | None, rules: list[str]) -> dict[str, Value]:
    """Values by name: those of the file, then "NAME:=VALUE" rules over them.

    Raises:
        ConfigError: the file cannot be read, a name is unknown, or a value of no use.
    """
    given = {**({} if file is None else _read(file)), **dict(map(_rule, rules))}
    if wrong := parameters.unknown(NODE, list(given)):
        raise ConfigError(wrong)
    table = {p.name: p for p in parameters.TABLE[NODE]}
    known = {name: value for name, value in given.items() if name in table}
    return {name: table[name].check(value) for name, value in known.items() if name not in NOT_OURS}


def omni_settings(values: dict[str, Value]) -> OmniSettings:
    """The same for a session without nodes; it has no wall times, so that it can be repeated."""
    ours = {field.name for field in fields(OmniSettings)}
    found = {name: value for name, value in values.items() if name in ours}
    return OmniSettings(**{**found, "publish_timings": False})  # type: ignore[arg-type]


def _rule(rule: str) -> tuple[str, object]:
    name, _, value = rule.partition(":=")
    if not (name and value):
        raise ConfigError(f"parameter rule '{rule}': must be NAME:=VALUE, e.g. brain:=local")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"parameter rule '{rule}': the value is not YAML: {error}") from None


def _read(file: Path) -> dict[str, object]:
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"parameter file {file} cannot be read: {error}") from None
    given: dict[str, object] = {}
    for node, content in (found if isinstance(found, dict) else {}).items():
        # "/**", "omni", "/**/omni", "/robot/omni": as ROS matches them to a node of this name.
        if str(node).rsplit("/", 1)[-1] in (NODE, "**") and isinstance(content, dict):
            given |= content.get("ros__parameters") or {}
    return given

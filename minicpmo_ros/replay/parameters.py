"""Parameters of the omni node for a replay: a YAML file as nodes take it, and single values."""

from __future__ import annotations

import contextlib
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
    return {
        name: table[name].check(_as_ros_reads(value, table[name].default))
        for name, value in known.items()
        if name not in NOT_OURS
    }


def omni_settings(values: dict[str, Value]) -> OmniSettings:
    """The same for a session without nodes; it has no wall times, so that it can be repeated."""
    ours = {field.name for field in fields(OmniSettings)}
    found = {name: value for name, value in values.items() if name in ours}
    return OmniSettings(**{**found, "publish_timings": False})  # type: ignore[arg-type]


def _as_ros_reads(value: object, default: Value) -> object:
    """ROS takes 1e-3 for a number; PyYAML, after YAML 1.1, only 1.0e-3."""
    if isinstance(value, str) and isinstance(default, float):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


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
    try:
        return _of_omni("", {} if found is None else found)
    except ConfigError as error:
        raise ConfigError(f"parameter file {file}: {error}") from None


def _of_omni(name: str, content: object) -> dict[str, object]:
    """What a node, or a namespace with nodes in it, has for us."""
    if not isinstance(content, dict):
        raise ConfigError(f"'{name}' stands outside of ros__parameters of a node")
    given: dict[str, object] = {}
    for key, value in content.items():
        if key != "ros__parameters":
            given |= _of_omni(f"{name}/{key}" if name else str(key), value)
        # "/**", "omni", "/**/omni", "/robot/omni": as ROS matches them to a node of this name.
        elif name.rsplit("/", 1)[-1] in (NODE, "*", "**"):
            given |= _flat(name, {} if value is None else value)
    return given


def _flat(name: str, values: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(values, dict):
        raise ConfigError(f"ros__parameters of '{name}' must be names with values")
    given: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            given |= _flat(name, value, f"{prefix}{key}.")
        else:
            given[f"{prefix}{key}"] = value
    return given

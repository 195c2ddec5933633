"""A node's parameters: declared from the table, checked, and guarded against change at the wrong
time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.nodes import parameters
from minicpmo_ros.nodes.parameters import Parameter

UNCONFIGURED = "unconfigured"
_UNKNOWN = "unknown names"
_CLOCK = "use_sim_time"


class Settings:
    """The parameters of one node. phase() is the node's; live_change gets what changes while it is
    configured.

    What is wrong with the values given at the start is kept for `check`: the node must be there for
    its parameters to be mended.
    """

    def __init__(
        self,
        node: Any,
        kind: str,
        phase: Callable[[], str],
        live_change: Callable[[str, Any], None],
    ) -> None:
        self._table = {p.name: p for p in parameters.TABLE[kind]}
        self._phase = phase
        self._live_change = live_change
        # What the command line or a YAML file says; rclpy has no public way to see unknown names.
        given = {name: entry.value for name, entry in node._parameter_overrides.items()}
        self._problems = {_UNKNOWN: parameters.unknown(kind, list(given))}
        for p in self._table.values():
            value = self._given(p, given)
            node.declare_parameter(p.name, value, descriptor(p), ignore_override=True)
        about = ParameterDescriptor(description="Configure and activate the node at its start.")
        autostart = self._given(Parameter("autostart", True, ""), given)
        node.declare_parameter("autostart", autostart, about, ignore_override=True)
        node.add_on_set_parameters_callback(self._on_set)

    def check(self) -> None:
        """Raises ConfigError when a value given at the start is wrong and was not mended since."""
        wrong = [text for text in self._problems.values() if text]
        if wrong:
            raise ConfigError("; ".join(wrong))

    def _given(self, p: Parameter, given: dict[str, Any]) -> Any:
        if p.name not in given:
            return p.default
        try:
            return p.check(given[p.name])
        except ConfigError as error:
            self._problems[p.name] = str(error)
            return p.default

    def _on_set(self, changes: list[Any]) -> SetParametersResult:
        phase = self._phase()
        known = [(self._table[c.name], c.value) for c in changes if c.name in self._table]
        try:
            if phase != UNCONFIGURED and any(c.name == _CLOCK for c in changes):
                raise ConfigError(_too_late(_CLOCK, phase))
            # All before any is applied: they are set together or not at all.
            for p, value in known:
                p.check(value)
                if phase != UNCONFIGURED and not p.live:
                    raise ConfigError(_too_late(p.name, phase))
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for p, value in known:
            self._problems.pop(p.name, None)
            if phase != UNCONFIGURED:
                self._live_change(p.name, p.check(value))
        return SetParametersResult(successful=True)


def descriptor(p: Parameter) -> ParameterDescriptor:
    """What `ros2 param describe` shows of a parameter."""
    notes = [f"one of: {p.range_text}"] if p.choices else []
    notes.append("may change at any time" if p.live else "may change while unconfigured")
    made = ParameterDescriptor(
        description=p.description + (f" [{p.unit}]" if p.unit else ""),
        additional_constraints="; ".join(notes),
    )
    if p.low is None or p.high is None:
        return made
    if isinstance(p.default, float):
        made.floating_point_range = [FloatingPointRange(from_value=p.low, to_value=p.high)]
    else:
        made.integer_range = [IntegerRange(from_value=int(p.low), to_value=int(p.high))]
    return made


def _too_late(name: str, phase: str) -> str:
    first = "deactivate and clean up" if phase == "active" else "clean up"
    return f"parameter '{name}' cannot change while the node is {phase}: {first} the node first"

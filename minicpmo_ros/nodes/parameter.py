"""One parameter of a node: its name, what it means, and which values it may have. No ROS."""

from __future__ import annotations

from dataclasses import dataclass

from minicpmo_ros.errors import ConfigError

Value = bool | int | float | str


@dataclass(frozen=True)
class Parameter:
    """One parameter. live: may change while the node is active; others need a new configuration.
    launched: the launch file chooses it, unless a file of parameters does."""

    name: str
    default: Value
    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    launched: bool = False

    def check(self, value: object) -> Value:
        """The value in the parameter's type; raises ConfigError naming what would be right."""
        kind = type(self.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(value, bool) and {"on", "off"} <= set(self.choices):
            value = "on" if value else "off"  # YAML takes these words for true and false
        if kind is str and not self.choices and type(value) is int:
            value = str(value)  # the index of a device, which YAML takes for a number
        if type(value) is not kind:
            raise ConfigError(
                f"parameter '{self.name}': {value!r} is of type {type(value).__name__}; "
                f"a {kind.__name__} such as {self.default!r} is expected"
            )
        if self.choices and value not in self.choices:
            raise ConfigError(
                f"parameter '{self.name}': {value!r} is not one of {', '.join(self.choices)}"
            )
        if self.low is not None and not self.low <= value <= self.high:  # type: ignore[operator]
            raise ConfigError(
                f"parameter '{self.name}': {value} is out of range; "
                f"{self.low:g} to {self.high:g} {self.unit}".rstrip()
            )
        return value  # type: ignore[return-value]

    @property
    def range_text(self) -> str:
        if self.choices:
            return ", ".join(self.choices)
        return "" if self.low is None else f"{self.low:g} to {self.high:g}"

"""One key of a recipe: its default, what it means, and which values it may have."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from minicpmo_ros.errors import ConfigError


@dataclass(frozen=True)
class Key:
    """about: a sentence for the documents. low, high: both may be reached. choices: all there are.
    form: a regular expression and how a person would say it. Of a tuple, all hold for each item."""

    about: str
    unit: str = ""
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    form: tuple[str, str] | None = None

    @property
    def range_text(self) -> str:
        if self.form:
            return self.form[1]
        if self.choices:
            return ", ".join(filter(None, self.choices))
        return "" if self.low is None else f"{self.low} to {self.high}"

    def wrong(self, value: object) -> str:
        """What is wrong with a single value; empty if nothing is."""
        if self.low is not None and self.high is not None:
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole and self.low <= value <= self.high):  # type: ignore[operator]
                return f"must be a whole number from {self.low} to {self.high} {self.unit}".rstrip()
        elif not isinstance(value, str):
            return f"must be {f'one of {self.range_text}' if self.range_text else 'text'}"
        elif self.choices and value not in self.choices:
            return f"must be one of {self.range_text}"
        elif self.form and not re.fullmatch(self.form[0], value):
            return f"must be {self.form[1]}"
        return ""


def key(
    default: Any,
    about: str,
    unit: str = "",
    low: int | None = None,
    high: int | None = None,
    choices: tuple[str, ...] = (),
    form: tuple[str, str] | None = None,
) -> Any:
    """A field of a dataclass with a `Key`."""
    declared = Key(about, unit, low, high, choices, form)
    return field(default=default, metadata={"key": declared})


def keys_of(kind: Any) -> dict[str, Key]:
    """The keys of a dataclass, by name; sections, which are dataclasses themselves, left out."""
    return {one.name: one.metadata["key"] for one in fields(kind) if "key" in one.metadata}


def check(settings: Any, prefix: str) -> None:
    """Hold every value against its key.

    Raises:
        ConfigError: naming prefix and key, the value and what would be right.
    """
    for name, declared in keys_of(settings).items():
        value = getattr(settings, name)
        many = isinstance(type(settings).__dataclass_fields__[name].default, tuple)
        if many and not isinstance(value, tuple):
            raise ConfigError(f"{prefix}{name}: {value!r} must be a list")
        for item in value if many else (value,):
            if wrong := declared.wrong(item):
                raise ConfigError(f"{prefix}{name}: {item!r} {wrong}")


def table(kind: Any, prefix: str = "") -> list[str]:
    """Rows of a Markdown table: key, default, range, meaning; sections after the key that they
    stand behind."""
    rows = []
    for one in fields(kind):
        declared = one.metadata.get("key")
        if declared is None:
            if one.default_factory is not MISSING:
                rows += table(one.default_factory, f"{prefix}{one.name}.")
            continue
        default = list(one.default) if isinstance(one.default, tuple) else one.default
        shown = "(empty)" if default in ("", []) else f"`{default}`"
        unit = f" {declared.unit}" if declared.unit else ""
        rows.append(
            f"| `{prefix}{one.name}` | {shown} | {declared.range_text}{unit} | {declared.about} |"
        )
    return rows

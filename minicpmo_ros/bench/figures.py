"""The shape that every bench shares: dotted names, a table, a JSON file with the machine named."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured number. name: dotted, e.g. "ros.audio_lost". goal: in words, empty for none."""

    name: str
    value: float
    unit: str = ""
    goal: str = ""
    met: bool | None = None

    @classmethod
    def at_most(cls, name: str, value: float, limit: float, unit: str = "") -> Figure:
        return cls(name, value, unit, f"<= {limit:g}", value <= limit)

    @classmethod
    def at_least(cls, name: str, value: float, limit: float, unit: str = "") -> Figure:
        return cls(name, value, unit, f">= {limit:g}", value >= limit)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def show(
    title: str,
    figures: list[Figure],
    path: Path | None,
    conditions: Mapping[str, object] | None = None,
) -> None:
    """Print the table; with a path, also write {"machine": ..., "figures": {name: number}}.

    conditions: under which it was measured; printed, and written beside the machine's facts.
    """
    console = Console(soft_wrap=True, highlight=False)
    console.width = max(console.width, 120)  # of a pipe, which would cut names off
    on = machine()
    console.print(f"{title}, on {on['processor']}, {on['cores']} cores, {on['memory_gib']} GiB")
    if conditions:
        console.print("; ".join(f"{name}: {value}" for name, value in conditions.items()))
        on["conditions"] = dict(conditions)
    table = Table(box=None, pad_edge=False)
    for heading, side in (("figure", "left"), ("value", "right"), ("unit", "left")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    table.add_column("goal")
    for figure in figures:
        verdict = {None: "", True: " met", False: " MISSED"}[figure.met]
        table.add_row(figure.name, f"{figure.value:.4g}", figure.unit, figure.goal + verdict)
    console.print(table)
    if path is not None:
        data = {"machine": on, "figures": {f.name: f.value for f in figures}}
        path.write_text(json.dumps(data, indent=2) + "\n")
        console.print(f"written to {path}")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""How training goes, on the screen and as a picture of its curves."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SHOWN = ("decisions", "text", "words", "heard", "phonemes", "slots", "asked", "told", "changes")


class Shown:
    """A progress bar with the losses, a line for each check, and curves.png at the end."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder = folder
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._progress.add_task("training", total=steps)

    def __enter__(self) -> Shown:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if curves := draw_curves(self._folder):
            self._progress.console.print(f"curves: {curves}")

    def __call__(self, told: dict[str, Any]) -> None:
        losses = " ".join(f"{name} {told[name]:.3f}" for name in _SHOWN if name in told)
        self._progress.update(self._task, completed=told["step"], description=losses)
        checks = {name: value for name, value in told.items() if "." in name}
        if checks:
            rate = told["units"] / max(told["seconds"], 1e-9)
            found = "  ".join(f"{name} {value:.3f}" for name, value in checks.items())
            self._progress.console.print(f"step {told['step']}, {rate:.0f} units/s: {found}")


def draw_curves(folder: Path) -> Path | None:
    """Losses and checks over the units learned from, as curves.png; None without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    file = folder / "curves.jsonl"
    if not file.exists():
        return None
    told = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    losses, checks = figure.subplots(1, 2)
    for name in _SHOWN:
        points = [(one["units"] / 1000, one[name]) for one in told if name in one]
        if points:
            losses.plot(*_smooth(points), label=name)
    losses.set(yscale="log", title="losses", xlabel="thousand units")
    names = sorted({name for one in told for name in one if "." in name})
    for name in names:
        points = [(one["units"] / 1000, 100 * one[name]) for one in told if name in one]
        checks.plot(*zip(*points, strict=True), marker=".", label=name)
    checks.set(title="right, %", xlabel="thousand units", ylim=(0, 101))
    for axes in (losses, checks):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend(fontsize=7)
    path = folder / "curves.png"
    figure.savefig(path, dpi=110)
    return path


def _smooth(points: list[tuple[float, float]], weight: float = 0.95) -> tuple[list[float], ...]:
    """An exponential mean, so that single steps do not hide the way."""
    mean, found = points[0][1], []
    for _, value in points:
        mean = weight * mean + (1 - weight) * value
        found.append(mean)
    return [x for x, _ in points], found

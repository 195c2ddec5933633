"""The extras of this package, what each asks of a machine, and which a target needs."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from scripts.bootstrap.machine import NEWEST, OLDEST, Python


@dataclass(frozen=True)
class Extra:
    """An extra of pyproject.toml, its list being requirements/<name>.txt."""

    name: str
    purpose: str
    disk_mb: int  # free space that it and its download need
    oldest: tuple[int, int] = OLDEST
    newest: tuple[int, int] = NEWEST
    machines: tuple[str, ...] = ()  # as platform.machine() says; empty for all
    nvidia: bool = False

    def obstacle(self, python: Python, free_mb: float, machine: str, nvidia: bool) -> str | None:
        """Why this machine cannot hold it, or None."""
        if not self.oldest <= python.version <= self.newest:
            wanted = "{}.{} to {}.{}".format(*self.oldest, *self.newest)
            return f"it needs Python {wanted}, this is {python.name}"
        if self.machines and machine not in self.machines:
            return f"it is for {', '.join(self.machines)}, this is {machine}"
        if self.nvidia and not nvidia:
            return "it needs an NVIDIA driver, and there is none"
        if free_mb < self.disk_mb:
            return f"it needs {self.disk_mb} MB of disk, {free_mb:.0f} MB are free"
        return None


EXTRAS = (
    Extra("report", "the timeline report", disk_mb=250),
    Extra("video", "recordings from videos", disk_mb=150),
    # On x86-64 torch brings CUDA with it, unless pip finds a build for CPUs.
    Extra("model", "the network in torch", disk_mb=9000),
    Extra("export", "ONNX files of the network", disk_mb=200),
    Extra("nano", "training of the small checkpoint", disk_mb=200),
    Extra("rtx", "engines for RTX cards", disk_mb=450, machines=("x86_64",)),
    Extra("test", "what the tests need", disk_mb=250),
    Extra("lint", "ruff and mypy", disk_mb=150),
)

# Which extras a target needs. `extras` takes all that the machine can hold.
PROFILES: dict[str, tuple[str, ...]] = {
    "run": ("report",),
    "test": ("report", "video", "test", "model", "export", "rtx"),
    "lint": ("report", "video", "test", "lint", "model", "export", "rtx"),
    "extras": (),
}
# Without these a target works, too: what they are for is skipped.
DISPENSABLE = ("model", "export", "rtx")


def has_nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def choose_extras(
    profile: str, python: Python, folder: Path, without: str = ""
) -> tuple[list[str], list[str]]:
    """Names of the extras to install, and one line for each that was left out.

    without: names, with commas between them, that are not wanted (MINICPMO_WITHOUT).
    """
    free_mb = shutil.disk_usage(folder).free / 1e6
    wanted = PROFILES[profile]
    unwanted = [name.strip() for name in without.split(",")]
    chosen, skipped = [], []
    for extra in EXTRAS:
        if wanted and extra.name not in wanted:
            continue
        why_not = None
        if not wanted or extra.name in DISPENSABLE:
            why_not = extra.obstacle(python, free_mb, platform.machine(), has_nvidia())
            if extra.name in unwanted:
                why_not = "MINICPMO_WITHOUT says so"
        if why_not:
            skipped.append(f"extra {extra.name} ({extra.purpose}) is left out: {why_not}")
        else:
            chosen.append(extra.name)
            free_mb -= extra.disk_mb
    return chosen, skipped

"""Main memory of this machine, in bytes. No torch."""

from __future__ import annotations

import contextlib
from pathlib import Path


def available_bytes() -> int:
    """What could be taken now; 0 where the system does not tell."""
    return _meminfo("MemAvailable:")


def total_bytes() -> int:
    """What is built in; 0 where the system does not tell."""
    return _meminfo("MemTotal:")


def _meminfo(name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0

"""Main memory, of this machine and of this process, in bytes. No torch."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from pathlib import Path


def available_bytes() -> int:
    """What could be taken now; 0 where the system does not tell."""
    return _meminfo("MemAvailable:")


def total_bytes() -> int:
    """What is built in; 0 where the system does not tell."""
    return _meminfo("MemTotal:")


def restart_peak() -> None:
    """Count the process's peak from here on, where the system lets one."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Most memory of this process since it began, or since `restart_peak`."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def give_back() -> None:
    """To the system, what was freed and glibc would keep."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _meminfo(name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0

"""Memory of this process and of its card, in bytes."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch


def restart_peak() -> None:
    """Count the peak from here on, where the system lets one."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: torch.device) -> float:
    """Most memory since `restart_peak`: the process's, or on a card, the tensors'."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def available_bytes(device: torch.device) -> float:
    """Memory that could be taken now."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024.0
    return 0.0


def gib(nbytes: float) -> float:
    return nbytes / 2**30

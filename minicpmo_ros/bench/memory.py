"""Memory of this process and of its card, in bytes."""

from __future__ import annotations

import torch

from minicpmo_ros.runtime.engines import host_memory


def restart_peak() -> None:
    """Count the peak from here on, where the system lets one."""
    host_memory.restart_peak()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: torch.device) -> float:
    """Most memory since `restart_peak`: the process's, or on a card, the tensors'."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(host_memory.peak_bytes())


def available_bytes(device: torch.device) -> float:
    """Memory that could be taken now."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(host_memory.available_bytes())


def gib(nbytes: float) -> float:
    return nbytes / 2**30

"""Memory of this machine and of this process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.runtime.engines import host_memory

MB = 10**6


def test_what_is_free_is_less_than_what_there_is() -> None:
    total = host_memory.total_bytes()
    assert 0 < host_memory.available_bytes() < total
    assert total == pytest.approx(
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), rel=0.01
    )


def test_a_system_that_does_not_tell_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: object, **kwargs: object) -> str:
        raise FileNotFoundError("/proc")

    monkeypatch.setattr(Path, "read_text", nothing)
    monkeypatch.setattr(Path, "write_text", nothing)
    assert host_memory.available_bytes() == host_memory.total_bytes() == 0
    host_memory.restart_peak()
    assert host_memory.peak_bytes() > 10 * MB  # as rusage has it


def test_the_peak_is_counted_anew() -> None:
    block = np.ones(400 * MB, np.uint8)
    high = host_memory.peak_bytes()
    assert high >= 400 * MB
    del block
    host_memory.restart_peak()
    low = host_memory.peak_bytes()
    if low == high:
        pytest.skip("this system does not let one count anew")
    assert low < high - 200 * MB
    block = np.ones(300 * MB, np.uint8)
    assert host_memory.peak_bytes() >= low + 200 * MB
    del block

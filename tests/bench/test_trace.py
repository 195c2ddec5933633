"""The trace: what was added is what is read, between two times, and no more than there is room."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minicpmo_ros.bench.trace import Event, Rows, Trace

NOW = 1_700_000_000_123_456_789


def saved(trace: Trace, folder: Path) -> Rows:
    trace.save(folder / "trace.npy")
    return Rows.load(folder / "trace.npy")


def test_times_keep_their_nanoseconds(tmp_path: Path) -> None:
    trace = Trace(10)
    trace.add(Event.MIC_OUT, 7, NOW, NOW - 1)
    rows = saved(trace, tmp_path)
    assert rows.at(Event.MIC_OUT) == {7: NOW}
    assert rows.value(Event.MIC_OUT) == {7: NOW - 1}
    assert rows.at(Event.MIC_IN) == {}


def test_of_a_key_that_comes_twice_the_first_counts(tmp_path: Path) -> None:
    trace = Trace(10)
    trace.add(Event.STARTED, 1, NOW, 5)
    trace.add(Event.STARTED, 1, NOW + 1, 6)
    rows = saved(trace, tmp_path)
    assert rows.at(Event.STARTED) == {1: NOW}
    assert rows.value(Event.STARTED) == {1: 5}


def test_a_stretch_holds_what_was_recorded_in_it(tmp_path: Path) -> None:
    trace = Trace(10)
    for i in range(5):
        trace.add(Event.MIC_IN, i, NOW + i)
    part = saved(trace, tmp_path).between(NOW + 1, NOW + 3)
    assert sorted(part.at(Event.MIC_IN)) == [1, 2]


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    trace = Trace(2)
    for i in range(5):
        trace.add(Event.MIC_IN, i, NOW)
    assert trace.lost == 3
    assert len(saved(trace, tmp_path).at(Event.MIC_IN)) == 2


def test_an_empty_trace_is_a_trace(tmp_path: Path) -> None:
    rows = saved(Trace(4), tmp_path)
    assert rows.at(Event.MIC_IN) == {}
    assert isinstance(rows.between(0, NOW), Rows)
    assert np.load(tmp_path / "trace.npy").shape == (0, 4)

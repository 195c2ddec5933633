"""An hour of bag time: a scene repeated is one recording without a seam, and memory is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros import topics as t
from minicpmo_ros.bench.long_replay import repeated, replay_long
from minicpmo_ros.bench.process import MeasuredProcess
from minicpmo_ros.bench.replays import _slope, measure_memory
from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.messages import NS_PER_S, AudioChunk, Decision, Picture
from minicpmo_ros.replay.bag import open_bag
from tests.replay.live import at, read, write_bag


def test_rounds_follow_each_other_as_one_recording(tmp_path: Path) -> None:
    with open_bag(write_bag(tmp_path / "in", 2)) as bag:
        once = list(bag.messages())
        whole = list(repeated(bag, 6.0, 2.0).messages())
    assert len(whole) == 3 * len(once)
    log_times = [log_ns for _, log_ns, _ in whole]
    assert log_times == sorted(log_times)
    for i, (topic, log_ns, message) in enumerate(whole):
        turn, place = divmod(i, len(once))
        first_topic, first_ns, first = once[place]
        assert (topic, log_ns) == (first_topic, first_ns + turn * 2 * NS_PER_S)
        assert isinstance(message, AudioChunk | Picture)
        assert message.stamp_ns == first.stamp_ns + turn * 2 * NS_PER_S
        if isinstance(message, AudioChunk):
            assert np.array_equal(message.data, first.data)


def test_a_repeated_recording_is_lived_through_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_bag(tmp_path / "in", 3)
    summary = replay_long(scene, tmp_path / "out", 30.0, 3.0)
    decisions = [m for _, m in read(tmp_path / "out")[t.DECISION.name]]
    assert [m.stamp_ns for m in decisions if isinstance(m, Decision)] == [
        at(i + 1) for i in range(30)
    ]
    assert all(m.audio_filled_ms == 0.0 for m in decisions)
    assert summary.units == 30
    said = [float(line) for line in capsys.readouterr().out.split()]
    assert said == sorted(said)
    assert [round(s, -1) for s in said] == [10.0, 20.0, 30.0]


def test_memory_is_watched_over_a_replay(tmp_path: Path) -> None:
    figures = {f.name: f.value for f in measure_memory(tmp_path, 90.0)}
    assert set(figures) == {"ros.memory_growth_mb_per_hour", "ros.memory_replay_mb"}
    assert np.isfinite(figures["ros.memory_growth_mb_per_hour"])
    assert figures["ros.memory_replay_mb"] > 10


def test_the_slope_leaves_the_warm_up_out() -> None:
    seconds = np.arange(0.0, 100.0, 10.0)
    memory = np.where(seconds < 50, 50 + seconds, 100 + 0.5 * (seconds - 50))
    slope, last = _slope(np.column_stack([seconds, memory]), 50.0)
    assert slope == pytest.approx(0.5)
    assert last == 120.0


def test_a_process_that_fails_is_reported_with_its_last_words(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "no_bag"), str(tmp_path / "out"), "10"]
    with (
        pytest.raises(MinicpmoError, match=r"long_replay ended with status 1;(.|\n)*no_bag"),
        MeasuredProcess("minicpmo_ros.bench.long_replay", arguments, tmp_path / "log") as process,
    ):
        assert list(process.lines(60.0)) == []

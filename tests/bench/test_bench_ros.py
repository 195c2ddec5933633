"""`minicpmo bench ros`: a short run measures what it says, and faults are told in one line."""

from __future__ import annotations

import builtins
import json
import math
import os
from pathlib import Path

import pytest

from minicpmo_ros.bench import replays
from minicpmo_ros.bench.live import Setting, run_stack
from minicpmo_ros.bench.ros import bench
from minicpmo_ros.errors import MinicpmoError

pytestmark = pytest.mark.timeout(300)  # live seconds, and a replay in lock step, beside others

PERCENTILES = (
    "unit_to_decision_ms",
    "unit_to_decision_with_brain_ms",
    "hop_capture_to_mic_ms",
    "hop_mic_to_omni_ms",
    "hop_capture_to_camera_ms",
    "hop_camera_to_omni_ms",
    "hop_sound_to_decision_ms",
    "hop_brain_ms",
    "hop_omni_to_speaker_ms",
    "hop_speaker_to_device_ms",
    "hop_interrupt_to_omni_ms",
    "hop_omni_to_silence_order_ms",
)
NAMES = {
    *(f"ros.{name}.{which}" for name in PERCENTILES for which in ("p50", "p99")),
    "ros.first_speech_to_device_ms",
    "ros.first_speech_to_device_ms.p50",
    "ros.interrupt_to_silence_ms.p50",
    "ros.interrupt_to_silence_ms.p95",
    "ros.cpu_percent_of_core",
    "ros.others_percent_of_machine",
    "ros.audio_lost",
    "ros.audio_chunks",
    "ros.audio_filled_ms",
    "ros.pictures_lost",
    "ros.pictures",
    "ros.units",
    "ros.turns",
    "ros.interruptions",
    "ros.memory_mb",
    "ros.memory_growth_live_mb",
    "ros.replay_x_realtime",
    "ros.replay_x_realtime.best",
    "ros.replay_ros_x_realtime",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The JSON of a run of four seconds."""
    pytest.importorskip("rclpy", reason="the bench needs ROS 2: `make setup`, or source yours")
    path = tmp_path_factory.mktemp("bench") / "figures.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replays, "RUNS", 2)
        patch.setattr(replays, "ROS_RUNS", 1)
        bench(4.0, path)
    return json.loads(path.read_text())


@pytest.fixture
def figures(written: dict) -> dict[str, float]:
    return written["figures"]


def test_it_writes_the_machine_and_exactly_these_figures(written: dict) -> None:
    assert set(written) == {"machine", "figures"}
    assert set(written["figures"]) == NAMES
    assert written["machine"]["processor"]
    assert written["machine"]["conditions"]["speaker"].startswith("clock")


def test_every_figure_is_a_finite_number(figures: dict[str, float]) -> None:
    assert all(
        isinstance(value, (int, float)) and math.isfinite(value) for value in figures.values()
    )


def test_no_sound_is_lost(figures: dict[str, float]) -> None:
    assert figures["ros.audio_lost"] == 0
    assert figures["ros.audio_chunks"] >= 30
    assert figures["ros.units"] >= 3


def test_the_robot_spoke_and_was_cut_off(figures: dict[str, float]) -> None:
    assert figures["ros.interruptions"] == 3
    assert figures["ros.turns"] >= 3


def test_latencies_add_up(figures: dict[str, float]) -> None:
    """A decision cannot be out before its sound is in, nor sooner with the brain than without."""
    ways = ("hop_capture_to_mic_ms", "hop_mic_to_omni_ms")
    assert figures["ros.unit_to_decision_ms.p50"] > 0.5 * sum(figures[f"ros.{w}.p50"] for w in ways)
    for which in ("p50", "p99"):
        bare = figures[f"ros.unit_to_decision_ms.{which}"]
        assert figures[f"ros.unit_to_decision_with_brain_ms.{which}"] > bare > 0
    for hop in PERCENTILES:
        assert figures[f"ros.{hop}.p50"] <= figures[f"ros.{hop}.p99"]


def test_the_four_nodes_cost_something_and_replay_is_faster_than_life(
    figures: dict[str, float],
) -> None:
    assert 0 < figures["ros.cpu_percent_of_core"] < 100 * (os.cpu_count() or 1)
    assert figures["ros.replay_x_realtime.best"] >= figures["ros.replay_x_realtime"] > 1
    assert figures["ros.memory_mb"] > 10


def test_without_ros_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_rclpy(name: str, *rest: object, **more: object) -> object:
        if name.partition(".")[0] == "rclpy":
            raise ImportError("No module named 'rclpy'")
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", no_rclpy)
    with pytest.raises(MinicpmoError, match=r"no ROS 2 here .*make setup"):
        bench(1.0)


def test_a_time_that_cannot_be_is_refused_at_once() -> None:
    pytest.importorskip("rclpy", reason="the bench needs ROS 2: `make setup`, or source yours")
    with pytest.raises(MinicpmoError, match="--seconds 0: must be 1 to"):
        bench(0.0)


class NoSuchSpeaker(Setting):
    def parameters(self, wav: Path) -> dict[str, dict[str, object]]:
        speaker = {"sink": "device", "device": "no such speaker"}
        return {**super().parameters(wav), "speaker": speaker}


def test_why_the_stack_does_not_start_is_told(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="the bench needs ROS 2: `make setup`, or source yours")
    with pytest.raises(MinicpmoError, match="the speaker node could not configure: "):
        run_stack(NoSuchSpeaker(1.0, speaker=True), tmp_path)

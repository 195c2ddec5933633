"""Each node in a process of its own, started and ended as a launch file does it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minicpmo_ros import topics
from tests.nodes.robot import Robot

PATIENCE_S = 60.0  # four interpreters start on two cores

QUIET = {
    "camera": {"source": "synthetic", "width": "64", "height": "48"},
    "mic": {"source": "silence", "echo_cancellation": "off", "noise_suppression": "false"},
    "omni": {"voice_detector": "energy", "image_transport": "compressed"},
    "speaker": {"sink": "clock"},
}


class Processes:
    """Processes of nodes. They end, one way or another, with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.running: dict[str, subprocess.Popen] = {}

    def start(self, node: str, *arguments: str, label: str = "", **parameters: str) -> None:
        values = {**QUIET.get(node, {}), **parameters}
        pairs = [part for k, v in values.items() for part in ("-p", f"{k}:={v}")]
        code = f"import sys; from minicpmo_ros.nodes.{node} import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "--ros-args", *pairs, *arguments]
        label = label or node
        with (self._folder / f"{label}.log").open("w") as log:
            self.running[label] = subprocess.Popen(command, stdout=log, stderr=log)

    def end(self, number: signal.Signals) -> dict[str, int]:
        """Exit status of each after the signal."""
        for process in self.running.values():
            process.send_signal(number)
        return {label: p.wait(PATIENCE_S) for label, p in self.running.items()}

    def said(self, label: str) -> str:
        return (self._folder / f"{label}.log").read_text()

    def kill(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def section(node: str) -> str:
    """Of a parameter file."""
    lines = "".join(f"    {name}: {value}\n" for name, value in QUIET[node].items())
    return f"/**/{node}:\n  ros__parameters:\n{lines}"


def start_until_refused(robot: Robot, processes: Processes) -> bool:
    """A second mic. On a machine under load discovery may be late: then yet another is tried."""

    def refused() -> bool:
        return "a node named /mic runs already" in processes.said("second")

    for _ in range(5):
        processes.start("mic", label="second")
        end_s = time.monotonic() + PATIENCE_S / 6
        while not refused() and time.monotonic() < end_s:
            robot.executor.spin_once(timeout_sec=0.05)
        if refused():
            return True
        second = processes.running.pop("second")
        second.send_signal(signal.SIGINT)
        second.wait(PATIENCE_S)
    return False


def is_active(status) -> bool:
    return status.message == "active"


@pytest.fixture
def processes(tmp_path):
    made = Processes(tmp_path)
    yield made
    made.kill()


def test_four_processes_make_one_robot_and_end_cleanly_on_sigint(processes):
    for node in QUIET:
        processes.start(node, "-r", "__ns:=/apart")
    with Robot() as robot:
        decisions = robot.hear(topics.DECISION, "/apart")
        reports = robot.hear(topics.PLAYBACK, "/apart")
        robot.until(
            lambda: [d for d in decisions if d.pictures and not d.audio_filled_ms],
            "a unit with pictures and sound",
            patience_s=PATIENCE_S,
        )
        assert reports == []
        for node in QUIET:
            assert robot.diagnosis(f"/apart/{node}: node").message == "active"
    assert processes.end(signal.SIGINT) == dict.fromkeys(QUIET, 0)
    for node in QUIET:
        assert "Traceback" not in processes.said(node), processes.said(node)


def test_one_process_holds_all_four_and_ends_cleanly_on_sigterm(processes, tmp_path):
    config = tmp_path / "robot.yaml"
    config.write_text("".join(section(node) for node in QUIET))
    processes.start("stack", "--params-file", str(config), "-r", "__ns:=/together")
    with Robot() as robot:
        for node in QUIET:
            active = robot.diagnosis(f"/together/{node}: node", is_active, PATIENCE_S)
            assert active.hardware_id == f"/together/{node}"
    assert processes.end(signal.SIGTERM) == {"stack": 0}
    assert "Traceback" not in processes.said("stack"), processes.said("stack")


def test_a_node_that_could_not_start_still_ends_cleanly_and_has_said_why(processes):
    processes.start("mic", source="file:/nowhere.wav")
    with Robot() as robot:
        robot.diagnosis("/mic: node", lambda s: "/nowhere.wav" in s.message, PATIENCE_S)
    assert processes.end(signal.SIGINT) == {"mic": 0}
    assert "configure failed: /nowhere.wav does not exist" in processes.said("mic")


def test_a_second_process_of_the_same_name_is_refused_while_the_first_goes_on(processes):
    processes.start("mic", label="first")
    with Robot() as robot:
        robot.diagnosis("/mic: node", is_active, PATIENCE_S)
        refused = start_until_refused(robot, processes)
        assert refused, "five of them found no twin"
        robot.diagnosis("/mic: node", lambda s: "another node named /mic runs, too" in s.message)
        chunks = robot.hear(topics.MIC)
        robot.until(lambda: len(chunks) > 2, "the sound of the first")
        assert len({chunk.sequence for chunk in chunks}) == len(chunks)
    assert processes.end(signal.SIGINT) == {"first": 0, "second": 0}


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--params-file", "/nowhere.yaml"], "/nowhere.yaml"),
        (["-p", "use_sim_time:=5"], "'use_sim_time' to '5'"),
    ],
    ids=["no such file", "a wrong type"],
)
def test_arguments_that_ros_cannot_take_end_the_process_with_one_line(processes, arguments, reason):
    processes.start("mic", *arguments)
    assert processes.running["mic"].wait(PATIENCE_S) == 1
    assert reason in processes.said("mic")
    assert "Traceback" not in processes.said("mic")

"""The launch files run by the real `ros2 launch`, where it is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from minicpmo_ros import topics
from minicpmo_ros.messages import NS_PER_S, AudioChunk
from minicpmo_ros.replay.bag import open_bag
from minicpmo_ros.replay.bag_writer import BagWriter
from tests.launch.test_launch_files import FILES, OMNI, constant

MISSING = [name for name in ("launch_ros", "ros2launch") if not importlib.util.find_spec(name)]
pytestmark = pytest.mark.skipif(
    bool(MISSING) or shutil.which("ros2") is None,
    reason=f"no `ros2 launch` here (missing: {', '.join(MISSING) or 'ros2'}); "
    "it comes with an installed ROS, not from PyPI",
)

PATIENCE_S = 60.0
QUIET = {
    "camera": {"source": "synthetic", "width": 64, "height": 48},
    "mic": {"source": "silence", "echo_cancellation": "off", "noise_suppression": False},
    "omni": {"voice_detector": "energy"},
    "speaker": {"sink": "clock"},
}


class Launched:
    """`ros2 launch` of a file, in a session of its own."""

    def __init__(self, log: Path, file: str, *arguments: str) -> None:
        self._log = log
        with log.open("w") as out:
            self._process = subprocess.Popen(
                ["ros2", "launch", "minicpmo_ros", file, *arguments],
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def interrupt(self) -> int:
        """As Ctrl-C does it: to all of them. The exit status."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(PATIENCE_S)

    def wait(self) -> int:
        return self._process.wait(2 * PATIENCE_S)

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def launch(tmp_path):
    config = tmp_path / "robot.yaml"
    sections = {f"/**/{node}": {"ros__parameters": values} for node, values in QUIET.items()}
    config.write_text(yaml.safe_dump(sections))
    launched: list[Launched] = []

    def start(file: str, *arguments: str) -> Launched:
        given = (f"params_file:={config}", *arguments) if file == OMNI.name else arguments
        launched.append(Launched(tmp_path / f"{len(launched)}.log", file, *given))
        return launched[-1]

    yield start
    for one in launched:
        one.kill()


@pytest.fixture
def watcher():
    from tests.nodes.robot import Robot

    with Robot() as robot:
        yield robot


def becomes(watcher, name: str, phase: str) -> None:
    def said() -> bool:
        status = watcher.diagnostics.get(f"{name}: node")
        return status is not None and status.message == phase

    watcher.until(said, f"{name} to become {phase}", PATIENCE_S)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_show_args_tells_of_every_argument(path):
    done = subprocess.run(
        ["ros2", "launch", "minicpmo_ros", path.name, "--show-args"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    for name, _, text in constant(path, "ARGUMENTS"):
        assert f"'{name}':" in done.stdout
        assert text in done.stdout


@pytest.mark.parametrize("together", ["true", "false"])
def test_a_robot_in_a_namespace_comes_up_and_ends_cleanly(launch, watcher, together):
    stack = launch(OMNI.name, "namespace:=r1", f"use_composition:={together}")
    for node in QUIET:
        becomes(watcher, f"/r1/{node}", "active")
    decisions = watcher.hear(topics.DECISION, "/r1")
    watcher.until(lambda: [d for d in decisions if d.pictures], "a unit with a picture", PATIENCE_S)
    assert stack.interrupt() == 0, stack.said
    assert stack.said.count("process has finished cleanly") == (1 if together == "true" else 4)
    assert "Traceback" not in stack.said


def test_without_autostart_the_nodes_wait_for_their_transitions(launch, watcher):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    stack = launch(OMNI.name, "autostart:=false", "log_level:=warn")
    for node in QUIET:
        becomes(watcher, f"/{node}", "unconfigured")
    for step, phase in (
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_ACTIVE_SHUTDOWN, "finalized"),
    ):
        wanted = Transition(id=step)
        assert watcher.call(ChangeState, "/speaker/change_state", transition=wanted).success
        becomes(watcher, "/speaker", phase)
    becomes(watcher, "/mic", "unconfigured")
    assert stack.interrupt() == 0, stack.said


def test_simulated_time_and_the_log_level_reach_the_nodes(launch, watcher):
    from rcl_interfaces.srv import GetParameters

    stack = launch(OMNI.name, "use_sim_time:=true", "log_level:=debug")
    becomes(watcher, "/omni", "active")
    answer = watcher.call(GetParameters, "/omni/get_parameters", names=["use_sim_time"])
    assert answer.values[0].bool_value
    assert "[DEBUG]" in stack.said
    assert stack.interrupt() == 0, stack.said


def test_a_file_of_parameters_wins_over_the_launch_file(launch, watcher, tmp_path):
    """Which would have pictures compressed between processes."""
    from rcl_interfaces.srv import GetParameters

    own = tmp_path / "own.yaml"
    chosen = {**QUIET["omni"], "image_transport": "none", "autostart": False}
    own.write_text(yaml.safe_dump({"/**/omni": {"ros__parameters": chosen}}))
    names = ["image_transport", "autostart"]
    for given, wanted in (([], ("compressed", True)), ([own], ("none", False))):
        more = [f"params_file:={path}" for path in given]
        stack = launch(OMNI.name, "use_composition:=false", *more)
        becomes(watcher, "/omni", "active" if wanted[1] else "unconfigured")
        answer = watcher.call(GetParameters, "/omni/get_parameters", names=names)
        transport, autostart = answer.values
        assert (transport.string_value, autostart.bool_value) == wanted
        assert stack.interrupt() == 0, stack.said
        watcher.diagnostics.clear()


def test_a_process_that_dies_is_started_again(launch, watcher):
    stack = launch(OMNI.name, "use_composition:=false", "use_respawn:=true")
    for node in QUIET:
        becomes(watcher, f"/{node}", "active")
    pid = int(stack.said.partition("[mic-2]: process started with pid [")[2].partition("]")[0])
    os.kill(pid, signal.SIGKILL)
    watcher.until(
        lambda: stack.said.count("[mic-2]: process started") == 2, "the second start", PATIENCE_S
    )
    watcher.diagnostics.clear()
    becomes(watcher, "/mic", "active")
    assert stack.interrupt() == 0, stack.said


def test_a_recording_is_replayed_into_a_new_one(launch, tmp_path):
    silence = np.zeros(1600, np.int16)
    with BagWriter(tmp_path / "bag") as writer:
        for place in range(35):
            stamp_ns = 1000 * NS_PER_S + place * NS_PER_S // 10
            chunk = AudioChunk(stamp_ns, silence, sequence=place)
            writer.write(topics.MIC, chunk.end_ns, chunk)
    done = launch("replay.launch.py", f"bag:={tmp_path / 'bag'}", f"out:={tmp_path / 'out'}")
    assert done.wait() == 0, done.said
    with open_bag(tmp_path / "out") as bag:
        assert bag.counts[topics.DECISION] >= 3

"""Recording: what was published is in the bag, to the last message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("minicpmo_ros.msg", reason="the interfaces are not built: make setup")

import rclpy
from rclpy.executors import SingleThreadedExecutor

from minicpmo_ros import topics as t
from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.messages import AudioChunk
from minicpmo_ros.nodes.ros_types import TYPES, message_class, qos
from minicpmo_ros.replay.bag import open_bag
from minicpmo_ros.replay.record import Recorder, record_bag
from minicpmo_ros.topics import Topic
from minicpmo_ros.wire import to_ros

PATIENCE_S = 30.0


class World:
    """A node that publishes, on an executor of its own."""

    def __init__(self, namespace: str) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("world", namespace=namespace, context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    def publisher(self, topic: Topic) -> Any:
        return self.node.create_publisher(message_class(topic.type), topic.name, qos(topic))

    def spin_until(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, "gave up waiting"
            self._executor.spin_once(timeout_sec=0.01)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(f"/record{os.getpid()}_{abs(hash(request.node.name)) % 10_000}")
    yield made
    made.close()


def chunk(i: int) -> AudioChunk:
    return AudioChunk(10**18 + i, np.full(1600, i, np.int16), sequence=i)


def picture(i: int) -> Any:
    header = TYPES.new("std_msgs/msg/Header")
    header.stamp.sec = i
    return TYPES.new(t.IMAGE_COMPRESSED.type, header=header, format="jpeg", data=[1, 2, 3])


def sequences(path: Path) -> list[int]:
    with open_bag(path) as bag:
        return [m.sequence for _, _, m in bag.messages([t.MIC])]  # type: ignore[union-attr]


def test_messages_are_recorded_as_they_were_published(world: World, tmp_path: Path) -> None:
    microphone = world.publisher(t.MIC)
    recorder = Recorder(world.node, tmp_path / "bag")
    world.spin_until(lambda: microphone.get_subscription_count() == 1)
    for i in range(20):
        microphone.publish(to_ros(chunk(i), TYPES))
    world.spin_until(lambda: recorder.counts.get("audio/mic") == 20)
    recorder.close()
    with open_bag(tmp_path / "bag") as bag:
        assert bag.namespace == world.node.get_namespace()
        messages = [m for _, _, m in bag.messages()]
    assert [m.sequence for m in messages] == list(range(20))  # type: ignore[union-attr]
    assert np.array_equal(messages[7].data, chunk(7).data)  # type: ignore[union-attr]


def test_a_latched_alert_from_before_the_recording_is_in_it(world: World, tmp_path: Path) -> None:
    states = world.publisher(t.STATE)
    states.publish(message_class(t.STATE.type)(epoch=4))
    recorder = Recorder(world.node, tmp_path / "bag")
    world.spin_until(lambda: recorder.counts.get("state") == 1)
    recorder.close()


def test_raw_pictures_are_left_out_where_compressed_ones_are(world: World, tmp_path: Path) -> None:
    raw, compressed = world.publisher(t.IMAGE), world.publisher(t.IMAGE_COMPRESSED)
    recorder = Recorder(world.node, tmp_path / "bag")
    world.spin_until(lambda: compressed.get_subscription_count() == 1)
    world.spin_until(lambda: raw.get_subscription_count() == 0)
    for i in range(5):
        raw.publish(message_class(t.IMAGE.type)(height=1, width=1, encoding="mono8", step=1))
        compressed.publish(picture(i))
    world.spin_until(lambda: recorder.counts.get("image_raw/compressed") == 5)
    recorder.close()
    assert recorder.counts == {"image_raw/compressed": 5}


def test_raw_pictures_alone_are_recorded(world: World, tmp_path: Path) -> None:
    raw = world.publisher(t.IMAGE)
    recorder = Recorder(world.node, tmp_path / "bag")
    world.spin_until(lambda: raw.get_subscription_count() == 1)
    raw.publish(message_class(t.IMAGE.type)(height=1, width=1, encoding="mono8", step=1, data=[7]))
    world.spin_until(lambda: recorder.counts.get("image_raw") == 1)
    recorder.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_recording_without_losing_its_tail(
    world: World, tmp_path: Path, number: signal.Signals
) -> None:
    code = (
        "import sys; from minicpmo_ros.replay.record import record_bag; "
        "record_bag(sys.argv[1], namespace=sys.argv[2])"
    )
    path = tmp_path / "bag"
    microphone = world.publisher(t.MIC)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path), world.node.get_namespace()],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        world.spin_until(lambda: microphone.get_subscription_count() == 1)
        # The recorder learns of the publisher a little later than the publisher of the recorder.
        for _ in range(20):
            microphone.publish(to_ros(chunk(0), TYPES))
            time.sleep(0.05)
        for i in range(50):
            microphone.publish(to_ros(chunk(i), TYPES))
            time.sleep(0.001)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 0, said
    recorded = sequences(path)
    assert recorded[-50:] == list(range(50))
    assert f"audio/mic {len(recorded)}" in said


def test_it_stops_by_itself_after_the_seconds_asked_for(tmp_path: Path) -> None:
    counts = record_bag(tmp_path / "bag", seconds=0.3, namespace=f"/nobody{os.getpid()}")
    assert counts == {}
    assert (tmp_path / "bag" / "metadata.yaml").exists()


def test_an_existing_bag_is_kept(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(InputError, match="exists already"):
        record_bag(tmp_path / "bag", seconds=0.1)


def test_no_time_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seconds is 0"):
        record_bag(tmp_path / "bag", seconds=0)

"""Records the stack's topics to a bag: every message as it comes, until told to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicpmo_ros.errors import ConfigError, DeviceError
from minicpmo_ros.replay.bag_writer import BagWriter
from minicpmo_ros.topics import ALL, IMAGE, IMAGE_COMPRESSED, Topic

if TYPE_CHECKING:
    from rclpy.node import Node

# A disk that stalls for a moment must not cost a message.
LEAST_DEPTH = 200
QUIET_S = 0.2  # after the signal: what is on its way has come when nothing came for so long
LONGEST_DRAIN_S = 1.0  # where publishers go on


class Recorder:
    """Writes what is published in the namespace of `node`, which somebody else spins.

    Messages go into the bag as the bytes they are, at the node's time of their arrival. Raw
    pictures are recorded only while nobody publishes compressed ones. Close it before the node is
    destroyed.
    """

    def __init__(self, node: Node, out: str | Path, overwrite: bool = False) -> None:
        """Raises `InputError` where out exists or cannot be made."""
        self.writer = BagWriter(out, node.get_namespace(), overwrite)
        self._node = node
        self._subscriptions = {topic: self._listen(topic) for topic in ALL if topic is not IMAGE}
        self._choose_pictures()
        self._timer = node.create_timer(1.0, self._choose_pictures)

    @property
    def counts(self) -> dict[str, int]:
        """Messages so far, by topic name."""
        return self.writer.counts

    def close(self) -> None:
        """The bag is whole after this; a second call does nothing."""
        self._node.destroy_timer(self._timer)
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions = {}
        self.writer.close()

    def _listen(self, topic: Topic) -> Any:
        from minicpmo_ros.nodes.ros_types import message_class, qos

        profile = qos(topic)
        profile.depth = max(profile.depth, LEAST_DEPTH)

        def take(raw: bytes) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            self.writer.write_raw(topic, now_ns, bytes(raw))

        kind = message_class(topic.type)
        return self._node.create_subscription(kind, topic.name, take, profile, raw=True)

    def _choose_pictures(self) -> None:
        name = self._node.resolve_topic_name(IMAGE_COMPRESSED.name)
        compressed = self._node.count_publishers(name) > 0
        if compressed and IMAGE in self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop(IMAGE))
        elif not compressed and IMAGE not in self._subscriptions:
            self._subscriptions[IMAGE] = self._listen(IMAGE)


def record_bag(
    out: str | Path,
    *,
    seconds: float | None = None,
    namespace: str = "",
    overwrite: bool = False,
) -> dict[str, int]:
    """Record until Ctrl-C, SIGTERM, or for so many seconds; messages written, by topic name.

    Raises `InputError` where out exists, `ConfigError` for seconds that are not positive,
    `DeviceError` where there is no ROS 2.
    """
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"seconds is {seconds}: must be more than 0")
    try:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
    except ImportError as error:
        raise DeviceError(
            f"recording needs ROS 2 ({error}): source its setup.sh, or run `make setup`"
        ) from error
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    context = rclpy.Context()
    # Our own handling of signals: rclpy's would end the context, and with it what is on its way.
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("recorder", namespace=namespace or None, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        with _stop_signals() as told:
            recorder = Recorder(node, out, overwrite)
            try:
                with console.status("recording; Ctrl-C ends it") as status:
                    end_s = None if seconds is None else time.monotonic() + seconds
                    while not told and (end_s is None or time.monotonic() < end_s):
                        executor.spin_once(timeout_sec=0.1)
                        status.update(f"recording; Ctrl-C ends it: {_told(recorder.counts)}")
                    _drain(executor, recorder)
            finally:
                recorder.close()
        console.print(f"{recorder.writer.path}: {_told(recorder.counts)}")
        return dict(recorder.counts)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


def _drain(executor: Any, recorder: Recorder) -> None:
    """Take what was published before the end and has not been read yet."""
    end_s = time.monotonic() + LONGEST_DRAIN_S
    known, since_s = -1, time.monotonic()
    while time.monotonic() < min(end_s, since_s + QUIET_S):
        executor.spin_once(timeout_sec=0.01)
        total = sum(recorder.counts.values())
        if total != known:
            known, since_s = total, time.monotonic()


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing yet"


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that is no longer empty once SIGINT or SIGTERM has come."""
    told: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = [signal.signal(number, lambda number, frame: told.append(number)) for number in numbers]
    try:
        yield told
    finally:
        for number, handler in zip(numbers, old, strict=True):
            signal.signal(number, handler)

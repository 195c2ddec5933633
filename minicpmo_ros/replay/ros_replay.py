"""Replay through the real omni and speaker nodes, in simulated time, message by message.

The next message goes out only when everybody has dealt with the last one and with all that
followed from it. So nothing is lost, simulated time stands still while a brain thinks, and the
outcome is that of the replay without ROS, to the byte. All runs in this process: the nodes' own
counts of messages sent and received tell when all is quiet.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Any

from minicpmo_ros import topics
from minicpmo_ros.errors import ConfigError, MinicpmoError
from minicpmo_ros.messages import NS_PER_S, Picture
from minicpmo_ros.replay.bag import Bag, Record
from minicpmo_ros.replay.drive import Output
from minicpmo_ros.topics import Topic

PATIENCE_S = 15.0  # wall time for one message and all that follows from it
OUTPUTS = topics.OUTPUTS


class ReplayStuckError(MinicpmoError):
    """The nodes did not finish with a message."""


class RosStage:
    """The omni and speaker nodes with a stage manager: time, inputs, and every output.

    `step(now_ns, record)` moves time, delivers the message and returns all that came of it.
    """

    @classmethod
    def for_bag(
        cls, bag: Bag, seen: Topic | None, parameters: dict[str, Any] | None = None
    ) -> RosStage:
        """The stage for a bag with pictures on `seen`; parameters: of the omni node."""
        transports = {topics.IMAGE: "raw", topics.IMAGE_COMPRESSED: "compressed"}
        return cls({"omni": parameters or {}}, transports[seen] if seen else "none")

    def __init__(self, parameters: dict[str, dict[str, Any]], pictures: str) -> None:
        """parameters: by node; pictures: the omni node's image_transport."""
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.parameter import Parameter
        from rosgraph_msgs.msg import Clock

        try:
            from rclpy.event_handler import SubscriptionEventCallbacks
        except ImportError:  # Humble
            from rclpy.qos_event import SubscriptionEventCallbacks

        from minicpmo_ros.nodes.omni import OmniNode
        from minicpmo_ros.nodes.ros_types import message_class, qos
        from minicpmo_ros.nodes.speaker import SpeakerNode

        self._clock_type = Clock
        self._ros_time: Callable[[int], Any]
        with ExitStack() as undo:
            context = rclpy.Context()
            rclpy.init(args=[], context=context)  # the command line is not theirs
            undo.callback(context.try_shutdown)
            self._executor = SingleThreadedExecutor(context=context)
            undo.callback(self._executor.shutdown)

            def overrides(values: dict[str, Any]) -> list[Parameter]:
                return [Parameter(name, value=value) for name, value in values.items()]

            omni = {"image_transport": pictures, "publish_timings": False}
            common = {"use_sim_time": True}
            self._omni = OmniNode(
                context=context,
                parameter_overrides=overrides({**omni, **parameters.get("omni", {}), **common}),
            )
            self._speaker = SpeakerNode(
                context=context,
                parameter_overrides=overrides(
                    {"sink": "clock", **parameters.get("speaker", {}), **common}
                ),
            )
            # Nobody calls this node, and every service and event costs time in each wait.
            self._node = rclpy.create_node(
                "replay", context=context, start_parameter_services=False, enable_rosout=False
            )
            silent = SubscriptionEventCallbacks(use_default_callbacks=False)
            for node in (self._omni, self._speaker, self._node):
                self._executor.add_node(node)
                undo.callback(node.destroy_node)
            self._clock = self._node.create_publisher(Clock, "/clock", 10)
            inputs = (topics.MIC, *topics.PICTURES)
            self._inputs = {
                topic.name: self._node.create_publisher(
                    message_class(topic.type), topic.name, qos(topic)
                )
                for topic in inputs
            }
            self._sent = dict.fromkeys(self._inputs, 0)
            self._heard = dict.fromkeys((t.name for t in OUTPUTS), 0)
            self._outputs: list[Output] = []
            self.troubles: Counter[str] = Counter()
            for topic in OUTPUTS:
                self._node.create_subscription(
                    message_class(topic.type),
                    topic.name,
                    partial(self._take, topic),
                    qos(topic),
                    raw=True,
                    event_callbacks=silent,
                )
            self._pictures = pictures
            self._undo = undo.pop_all()

    def start(self, now_ns: int) -> list[Output]:
        """Begin at a time; raises ConfigError when a node cannot be brought up."""
        self._wait(partial(_has_readers, self._clock, 2), "the nodes to find /clock")
        self._tell_time(now_ns)
        for node in (self._speaker, self._omni):
            self._bring_up(node)
        used = [topics.MIC]
        if self._pictures != "none":
            raw = self._pictures == "raw"
            used.append(topics.IMAGE if raw else topics.IMAGE_COMPRESSED)
        for topic in used:
            publisher = self._inputs[topic.name]
            self._wait(partial(_has_readers, publisher, 1), topic.name)
        for node, topic, readers in (
            (self._omni, topics.SPEECH, 2),
            (self._omni, topics.STATE, 2),
            (self._speaker, topics.PLAYBACK, 2),
            (self._speaker, topics.PLAYED, 1),
            (self._omni, topics.DECISION, 1),
            (self._omni, topics.ALERT, 1),
            (self._omni, topics.VOICE, 1),
        ):
            self._wait(partial(_is_read, node, topic, readers), f"readers of {topic.name}")
        self._settle()
        return self._collect()

    def step(self, now_ns: int, record: Record | None = None) -> list[Output]:
        """Move time to now_ns, then deliver a message; what the nodes made of it."""
        self._tell_time(now_ns)
        if record is not None and record.topic.name in self._inputs:
            self._sent[record.topic.name] += 1
            self._inputs[record.topic.name].publish(record.raw)
            self._settle()
        return self._collect()

    @property
    def speaking(self) -> bool:
        """Speech still sounds or waits."""
        return not self._speaker.queue.idle

    @property
    def session(self) -> Any:
        return self._omni.session

    def stop(self, now_ns: int) -> list[Output]:
        """The end of the run: the session stops, and what it cuts off is reported."""
        self.troubles = self._omni.troubles.counts()
        self._omni.trigger_deactivate()
        self._settle()
        return self._collect()

    def close(self) -> None:
        for node in (self._omni, self._speaker):
            node.trigger_shutdown()
        self._undo.close()

    # -- inside -----------------------------------------------------------------------------

    def _bring_up(self, node: Any) -> None:
        """Discovery believes the nodes of a replay that has just ended alive for a while."""
        from minicpmo_ros.nodes.run import GHOST_S, bring_up

        end_s = time.monotonic() + GHOST_S
        while not bring_up(node):
            if not (node.met_twin and time.monotonic() < end_s):
                raise ConfigError(f"the {node.kind} node could not start: {node.failure}")
            pause_s = time.monotonic() + 0.5
            while time.monotonic() < pause_s:
                self._executor.spin_once(timeout_sec=0.05)

    def _tell_time(self, now_ns: int) -> None:
        from builtin_interfaces.msg import Time

        clock = self._clock_type(clock=Time(sec=now_ns // NS_PER_S, nanosec=now_ns % NS_PER_S))
        nodes = (self._omni, self._speaker)
        tries = count()

        def told() -> bool:
            # Found by discovery is not yet connected both ways: the first ones can be lost.
            if next(tries) % 100 == 0:
                self._clock.publish(clock)
            return all(node.now_ns() == now_ns for node in nodes)

        self._wait(told, "the nodes to get the time")
        self._settle()

    def _settle(self) -> None:
        self._wait(self._quiet, "the nodes to finish with a message")

    def _quiet(self) -> bool:
        session = self._omni.session
        if session is not None and session.busy:
            return False
        omni, speaker = self._omni.traffic, self._speaker.traffic
        to_omni = all(
            omni.received[name] == sent for name, sent in self._sent.items() if self._wanted(name)
        )
        between = (
            speaker.received[topics.SPEECH.name] == omni.sent[topics.SPEECH.name]
            and speaker.received[topics.STATE.name] == omni.sent[topics.STATE.name]
            # At the end, what is cut off is reported to nobody but us.
            and (
                not self._omni.active
                or omni.received[topics.PLAYBACK.name] == speaker.sent[topics.PLAYBACK.name]
            )
        )
        sent = omni.sent + speaker.sent
        return to_omni and between and all(self._heard[t.name] == sent[t.name] for t in OUTPUTS)

    def _wanted(self, name: str) -> bool:
        return self._inputs[name].get_subscription_count() > 0

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            self._executor.spin_once(timeout_sec=0.001)
            if time.monotonic() > end_s:
                raise ReplayStuckError(f"replay waited {PATIENCE_S:.0f} s for {what}")

    def _take(self, topic: Topic, raw: bytes) -> None:
        self._heard[topic.name] += 1
        message = Record(topic, 0, bytes(raw)).message()
        assert not isinstance(message, Picture)
        self._outputs.append((topic, message))

    def _collect(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs


def _has_readers(publisher: Any, count: int) -> bool:
    return bool(publisher.get_subscription_count() >= count)


def _is_read(node: Any, topic: Topic, count: int) -> bool:
    return bool(node.readers(topic) >= count)

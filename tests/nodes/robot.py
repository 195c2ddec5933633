"""Real nodes in one process with the test as their executor, and everything that they publish."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from minicpmo_ros import topics
from minicpmo_ros.media.espeak import Utterance
from minicpmo_ros.messages import MIC_RATE_HZ, NS_PER_MS, NS_PER_S, SPEECH_RATE_HZ, WordMark
from minicpmo_ros.nodes.base import StackNode
from minicpmo_ros.nodes.camera import CameraNode
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.ros_types import TYPES, header, message_class, qos
from minicpmo_ros.nodes.run import bring_up
from minicpmo_ros.nodes.speaker import SpeakerNode
from minicpmo_ros.topics import Topic

PATIENCE_S = 20.0
DOMAINS = 100  # those above collide with the ephemeral ports of Linux
# Nodes that need no device, quick to make.
WITHOUT_DEVICES: dict[type, dict[str, Any]] = {
    CameraNode: {"source": "synthetic", "width": 64, "height": 48},
    MicNode: {"source": "silence", "echo_cancellation": "off", "noise_suppression": False},
    # Nobody brings sound and pictures all the time: the alert of their loss is to cut nothing off.
    OmniNode: {"brain": "reflex", "voice_detector": "energy", "interrupting_severity": "never"},
    SpeakerNode: {"sink": "clock"},
}
STEP_NS = 20 * NS_PER_MS
CHUNK_NS = 100 * NS_PER_MS
START_NS = 1_000 * NS_PER_S
OUR_THREADS = ("camera", "microphone", "brain", "sound", "omni clock", "speaker clock")


class ToneVoice:
    """A voice of 100 ms of tone a word."""

    def __init__(self, voice: str = "", rate_wpm: int = 0) -> None: ...

    def speak(self, text: str) -> Utterance:
        length = SPEECH_RATE_HZ // 10
        words = text.split()
        marks = tuple(WordMark(w, i * length, (i + 1) * length) for i, w in enumerate(words))
        sound = tone(len(words) * 0.1, SPEECH_RATE_HZ)
        return Utterance(data=sound, rate_hz=SPEECH_RATE_HZ, words=marks, text=text)


def tone(seconds: float, rate_hz: int = MIC_RATE_HZ, level: float = 8000.0) -> np.ndarray:
    at_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.round(level * np.sin(2 * np.pi * 440.0 * at_s)).astype(np.int16)


class Robot:
    """Nodes in a ROS context of their own. arguments: as on a command line, for all of them."""

    def __init__(self, arguments: list[str] | None = None) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=arguments, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes: list[StackNode] = []
        self.now_ns = START_NS
        self._simulated = False
        self._chunks = 0
        # What the test itself says and hears.
        self.friend = rclpy.create_node("friend", context=self.context, use_global_arguments=False)
        self.executor.add_node(self.friend)
        self._clock = self.friend.create_publisher(Clock, "/clock", 10)
        self.diagnostics: dict[str, Any] = {}
        array = message_class("diagnostic_msgs/msg/DiagnosticArray")
        self.friend.create_subscription(array, "/diagnostics", self._on_diagnostics, 100)

    def __enter__(self) -> Robot:
        gc.collect()
        return self

    def __exit__(self, *failure: Any) -> None:
        for node in self.nodes:
            if node.phase != "finalized":
                node.trigger_shutdown()
            node.destroy_node()
        self.friend.destroy_node()
        self.executor.shutdown()
        self.context.try_shutdown()
        # The next one has a domain of its own: discovery may take long to see that these nodes are
        # gone, and they would be its twins. Processes that a test starts inherit it.
        os.environ["ROS_DOMAIN_ID"] = str(1 + int(os.environ["ROS_DOMAIN_ID"]) % DOMAINS)
        if failure[0] is None:
            assert our_threads() == []

    # -- nodes ------------------------------------------------------------------------------

    def simulate(self) -> None:
        self._simulated = True

    def add(
        self, kind: type[StackNode], namespace: str = "", devices: bool = False, **parameters: Any
    ) -> Any:
        """A node, unconfigured. devices: leave its source and sink at their defaults."""
        values = {} if devices else dict(WITHOUT_DEVICES[kind])
        values = {**values, "diagnostics_hz": 10.0, **parameters}
        if self._simulated:
            values["use_sim_time"] = True
        node = kind(
            context=self.context,
            namespace=namespace or None,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def run(self, kind: type[StackNode], namespace: str = "", **parameters: Any) -> Any:
        """A node, active."""
        node = self.add(kind, namespace, **parameters)
        assert bring_up(node), node.failure
        return node

    def remove(self, node: StackNode) -> None:
        """As if its process had been killed, but for discovery, which learns it at once."""
        node.trigger_shutdown()
        self.executor.remove_node(node)
        node.destroy_node()
        self.nodes.remove(node)

    # -- waiting ----------------------------------------------------------------------------

    def until(self, condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
        """Spin until the condition holds, and return what it gave; fail when it does not come."""
        end_s = time.monotonic() + patience_s
        while not (result := condition()):
            assert time.monotonic() < end_s, f"waited {patience_s:.0f} s for {what}"
            self.executor.spin_once(timeout_sec=0.01)
        return result

    def live(
        self,
        seconds: float,
        until: Callable[[], Any] = lambda: False,
        sound: Callable[[int], np.ndarray] | None = None,
        omni: Any = None,
    ) -> Any:
        """Let simulated time go on; sound(stamp_ns) gives int16 [1600] for each chunk of 100 ms."""
        end_ns = self.now_ns + round(seconds * NS_PER_S)
        publisher = self.talk(topics.MIC) if sound is not None else None
        if publisher is not None:
            self.until(lambda: publisher.get_subscription_count(), "somebody to hear the sound")
        result = until()
        while not result and self.now_ns < end_ns:
            self.tick(self.now_ns + STEP_NS)
            if publisher is not None and self.now_ns % CHUNK_NS == 0:
                assert sound is not None
                before = omni.traffic.received[topics.MIC.name]
                stamp_ns = self.now_ns - CHUNK_NS
                publisher.publish(self.chunk(stamp_ns, sound(stamp_ns)))
                self.until(
                    lambda before=before: omni.traffic.received[topics.MIC.name] > before,
                    "the chunk to arrive",
                )
            result = until()
        return result

    def tick(self, now_ns: int) -> None:
        """Set simulated time, and wait until every node has it and the brain has thought."""
        self.now_ns = now_ns
        stamp = TYPES.new(
            "builtin_interfaces/msg/Time", sec=now_ns // NS_PER_S, nanosec=now_ns % NS_PER_S
        )
        tries = 0

        def told() -> bool:
            nonlocal tries
            if tries % 50 == 0:  # a clock is best effort
                self._clock.publish(Clock(clock=stamp))
            tries += 1
            return all(node.now_ns() == now_ns for node in self.nodes)

        self.until(told, "the nodes to have the time")
        sessions = [node.session for node in self.nodes if getattr(node, "session", None)]
        self.until(lambda: not any(s.busy for s in sessions), "the brain to have thought")

    # -- topics, services, actions ----------------------------------------------------------

    def hear(self, topic: Topic, namespace: str = "") -> list[Any]:
        """A list that fills with what comes on a topic."""
        heard: list[Any] = []
        name = f"{namespace}/{topic.name}" if namespace else topic.name
        self.friend.create_subscription(message_class(topic.type), name, heard.append, qos(topic))
        return heard

    def talk(self, topic: Topic, name: str = "") -> Any:
        """A publisher of the test's own."""
        return self.friend.create_publisher(
            message_class(topic.type), name or topic.name, qos(topic)
        )

    def chunk(self, stamp_ns: int, samples: np.ndarray, **fields: Any) -> Any:
        """An AudioChunk message; fields overrule."""
        values = {
            "header": header(stamp_ns, "test"),
            "sequence": self._chunks,
            "sample_rate": MIC_RATE_HZ,
            "channels": 1,
            "data": TYPES.int16(samples),
        }
        self._chunks += 1
        return TYPES.new(topics.MIC.type, **{**values, **fields})

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        client = self.friend.create_client(kind, name)
        self.until(client.service_is_ready, f"the service {name}")
        future = client.call_async(kind.Request(**fields))
        self.until(future.done, f"an answer of {name}")
        self.friend.destroy_client(client)
        return future.result()

    def set_parameters(self, node: StackNode, **values: Any) -> Any:
        """As `ros2 param set` does it; the result of the first."""
        from rcl_interfaces.srv import SetParameters

        entries = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        name = f"{node.get_fully_qualified_name()}/set_parameters"
        return self.call(SetParameters, name, parameters=entries).results[0]

    def diagnosis(
        self,
        name: str,
        of: Callable[[Any], Any] = lambda status: True,
        patience_s: float = PATIENCE_S,
    ) -> Any:
        """The next status of that name ("/omni: brain") for which `of` holds."""
        self.diagnostics.pop(name, None)
        return self.until(
            lambda: (found := self.diagnostics.get(name)) and of(found) and found,
            f"a certain diagnosis '{name}'",
            patience_s,
        )

    def _on_diagnostics(self, array: Any) -> None:
        self.diagnostics.update({status.name: status for status in array.status})


def values(status: Any) -> dict[str, str]:
    """The key-value pairs of a DiagnosticStatus."""
    return {entry.key: entry.value for entry in status.values}


def level(status: Any) -> int:
    return int.from_bytes(status.level, "little")


def our_threads() -> list[str]:
    """Names of the threads that only nodes start."""
    return [t.name for t in threading.enumerate() if t.name.startswith(OUR_THREADS)]

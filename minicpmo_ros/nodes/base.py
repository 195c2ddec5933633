"""What the four nodes share: lifecycle, topics, services, time, and what they say of themselves."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import QoSProfile

from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.nodes import diagnostics
from minicpmo_ros.nodes.beat import Beat
from minicpmo_ros.nodes.diagnostics import Status, text_of
from minicpmo_ros.nodes.ros_types import TYPES, message_class, qos
from minicpmo_ros.nodes.settings import UNCONFIGURED, Settings
from minicpmo_ros.nodes.twins import TwinError, full_name, refuse_twin, twin_problem
from minicpmo_ros.topics import Topic
from minicpmo_ros.wire import Message, to_ros

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE

Ticker = Callable[[], None]  # call it to stop


class StackNode(LifecycleNode):
    """A lifecycle node of the stack.

    A subclass implements configure, activate, deactivate, cleanup and statuses. An exception in
    configure or activate makes the transition fail, with the reason in the log and on
    /diagnostics; deactivate and cleanup are then called to undo what was half done, so they must
    take any state.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.kind = name
        self.stop_asked: Callable[[], bool] = lambda: False
        """The process was told to end: whoever waits in a transition gives up."""
        self.phase = UNCONFIGURED
        super().__init__(name, **options)
        self.traffic = diagnostics.Traffic()
        self.troubles = diagnostics.Troubles(self.get_logger())
        self._failed_on: Exception | None = None
        self._publishers_by_topic: dict[str, Any] = {}
        self._settings = Settings(self, name, lambda: self.phase, self.live_change)
        self._diagnostics = self.create_publisher(
            message_class("diagnostic_msgs/msg/DiagnosticArray"),
            "/diagnostics",
            QoSProfile(depth=10),
        )
        self._diagnosed_s = time.monotonic()
        self._stop_diagnosing: Ticker = lambda: None
        self._diagnose_steadily()

    # -- for subclasses ---------------------------------------------------------------------

    def configure(self) -> None: ...

    def activate(self) -> None: ...

    def deactivate(self) -> None: ...

    def cleanup(self) -> None: ...

    def live_change(self, name: str, value: Any) -> None:
        """A parameter marked live has been changed."""

    def statuses(self) -> list[Status]:
        return []

    def now_ns(self) -> int:
        """ROS time; 0 while simulated time has not begun."""
        return self.get_clock().now().nanoseconds

    def value(self, name: str) -> Any:
        return self.get_parameter(name).value

    @property
    def active(self) -> bool:
        return self.phase == "active"

    @property
    def failure(self) -> str:
        """Why the last transition failed; empty when it did not."""
        return text_of(self._failed_on) if self._failed_on else ""

    @property
    def met_twin(self) -> bool:
        """The last transition failed because another node has this name."""
        return isinstance(self._failed_on, TwinError)

    def every(self, period_s: float, callback: Callable[[], None]) -> Ticker:
        """Call back every period_s seconds or, in simulated time, at every step of /clock.

        The callback runs on a thread of its own, beside those of topics and services; in simulated
        time it does not: there a timer would skip short steps, and what a replay does would hang
        on their length.
        """
        if not self.value("use_sim_time"):
            return Beat(
                f"{self.kind} clock", period_s, partial(self.guarded, "clock", callback)
            ).stop
        any_step = JumpThreshold(
            min_forward=Duration(nanoseconds=1), min_backward=Duration(nanoseconds=-1)
        )
        handle = self.get_clock().create_jump_callback(
            any_step, post_callback=lambda jump: self.guarded("clock", callback)
        )
        return handle.unregister

    def steadily(self, period_s: float, callback: Callable[[], None]) -> Ticker:
        """Call back every period_s seconds, even when ROS time stands still or is set back."""
        timer = self.create_timer(
            period_s,
            lambda: self.guarded("timer", callback),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        return lambda: self.destroy_timer(timer)

    def advertise(self, topic: Topic) -> None:
        self.traffic.sent.setdefault(topic.name, 0)
        self._publishers_by_topic[topic.name] = self.create_lifecycle_publisher(
            message_class(topic.type), topic.name, qos(topic)
        )

    def readers(self, topic: Topic) -> int:
        """How many listen to a topic of ours."""
        publisher = self._publishers_by_topic.get(topic.name)
        return int(publisher.get_subscription_count()) if publisher is not None else 0

    def send(self, topic: Topic, message: Message) -> None:
        self.send_ros(topic, to_ros(message, TYPES))

    def send_ros(self, topic: Topic, message: Any) -> None:
        """Publish while the node is active; may be called from any thread."""
        publisher = self._publishers_by_topic.get(topic.name)
        if publisher is not None and publisher.is_activated:
            self.traffic.sent[topic.name] += 1
            publisher.publish(message)

    def listen(self, topic: Topic, callback: Callable[[Any], None]) -> Any:
        """Subscribe; what the callback raises is reported and nothing else suffers."""
        self.traffic.received.setdefault(topic.name, 0)

        def take(message: Any) -> None:
            self.guarded(topic.name, lambda: callback(message))
            self.traffic.received[topic.name] += 1

        return self.create_subscription(message_class(topic.type), topic.name, take, qos(topic))

    def guarded(self, kind: str, job: Callable[[], None]) -> None:
        """Run a job; what it raises becomes a trouble of that kind, not the end of the process."""
        try:
            job()
        except Exception as error:
            self.troubles.add(kind, text_of(error))
            if not isinstance(error, MinicpmoError):
                self.get_logger().debug(traceback.format_exc())

    # -- lifecycle --------------------------------------------------------------------------

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        try:
            self._settings.check()
            self._diagnose_steadily()
            refuse_twin(self)
            self.configure()
        except Exception as error:
            self._free()
            return self._fail("configure", error)
        self.phase, self._failed_on = "inactive", None
        return super().on_configure(state)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        # Publishers first: what activate() publishes must go out.
        result = super().on_activate(state)
        self.phase = "active"
        try:
            self.activate()
        except Exception as error:
            self.guarded("deactivate", self.deactivate)
            self.phase = "inactive"
            super().on_deactivate(state)
            return self._fail("activate", error)
        self._failed_on = None
        return result

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        self.guarded("deactivate", self.deactivate)
        self.phase = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        self._free()
        self.phase = UNCONFIGURED
        return super().on_cleanup(state)

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        self._stop()
        self.phase = "finalized"
        self.diagnose()
        self._stop_diagnosing()
        return super().on_shutdown(state)

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        self._stop()
        self.phase = UNCONFIGURED
        return SUCCESS

    def destroy_node(self) -> None:
        """For good: rclpy's state machine holds the node in the graph until Python collects it."""
        super().destroy_node()
        vars(self).pop("_state_machine", None)

    def _stop(self) -> None:
        if self.active:
            self.guarded("deactivate", self.deactivate)
        self._free()

    def _free(self) -> None:
        self.guarded("cleanup", self.cleanup)
        publishers, self._publishers_by_topic = self._publishers_by_topic, {}
        for publisher in publishers.values():
            self.destroy_lifecycle_publisher(publisher)

    def _fail(self, step: str, error: Exception) -> TransitionCallbackReturn:
        self._failed_on = error
        self.get_logger().error(f"{step} failed: {self.failure}")
        if not isinstance(error, MinicpmoError):
            trace = traceback.format_exception(type(error), error, error.__traceback__)
            self.get_logger().error("".join(trace))
        return FAILURE

    # -- diagnostics ------------------------------------------------------------------------

    def _diagnose_steadily(self) -> None:
        """As often as the parameter says now."""
        self._stop_diagnosing()
        self._stop_diagnosing = self.steadily(1.0 / self.value("diagnostics_hz"), self.diagnose)

    def diagnose(self) -> None:
        """Publish what this node says about itself."""
        now_s = time.monotonic()
        rates = self.traffic.rates(max(1e-3, now_s - self._diagnosed_s))
        self._diagnosed_s = now_s
        problem = self.failure
        if not problem and self.phase in ("inactive", "active"):
            problem = twin_problem(self)
        level = diagnostics.ERROR if problem else diagnostics.OK
        node = Status("node", level, problem or self.phase, {"phase": self.phase, **rates})
        try:
            more = self.statuses()
        except Exception as error:
            more = [Status("diagnostics", diagnostics.ERROR, text_of(error))]
        self._diagnostics.publish(
            diagnostics.diagnostic_array(
                self.get_clock().now().to_msg(),
                full_name(self),
                [node, self.troubles.status("troubles"), *more],
            )
        )

"""What the four nodes share: parameters from the table, lifecycle, topics, diagnostics, logging."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import QoSProfile

from minicpmo_ros.errors import ConfigError, MinicpmoError
from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.nodes import diagnostics, parameters
from minicpmo_ros.nodes.diagnostics import Status
from minicpmo_ros.nodes.ros_types import TYPES, message_class, qos
from minicpmo_ros.topics import Topic
from minicpmo_ros.wire import Message, to_ros

SUCCESS = TransitionCallbackReturn.SUCCESS
FAILURE = TransitionCallbackReturn.FAILURE


Ticker = Callable[[], None]  # call it to stop


class StackNode(LifecycleNode):
    """A lifecycle node of the stack.

    A subclass implements configure, activate, deactivate, cleanup and statuses; an exception in
    configure or activate makes the transition fail, with the reason in the log and on
    /diagnostics.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.kind = name
        super().__init__(name, **options)
        self.traffic = diagnostics.Traffic()
        self.troubles = diagnostics.Troubles(self.get_logger())
        self.phase = "unconfigured"
        self._failure = ""
        self._publishers_by_topic: dict[str, Any] = {}
        self._parameter_problems = self._declare()
        self.add_on_set_parameters_callback(self._on_set)
        self._diagnostics = self.create_publisher(
            message_class("diagnostic_msgs/msg/DiagnosticArray"),
            "/diagnostics",
            QoSProfile(depth=10),
        )
        # By the steady clock: a robot whose simulated time stands still must still say so.
        period_s = 1.0 / self.value("diagnostics_hz")
        self._diagnosed_s = time.monotonic()
        self.create_timer(period_s, self.diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))

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
        return self.get_clock().now().nanoseconds

    def value(self, name: str) -> Any:
        return self.get_parameter(name).value

    @property
    def active(self) -> bool:
        return self.phase == "active"

    def every(self, period_s: float, callback: Callable[[], None]) -> Ticker:
        """Call back at least every period_s seconds of ROS time, and at every step of /clock.

        In simulated time the clock moves in steps; a timer would skip the short ones, and what a
        replay does would hang on their length.
        """
        if not self.get_parameter("use_sim_time").value:
            timer = self.create_timer(period_s, callback)
            return lambda: self.destroy_timer(timer)
        any_step = JumpThreshold(
            min_forward=Duration(nanoseconds=1), min_backward=Duration(nanoseconds=-1)
        )
        handle = self.get_clock().create_jump_callback(
            any_step, post_callback=lambda jump: callback()
        )
        return handle.unregister

    def advertise(self, topic: Topic) -> None:
        self._publishers_by_topic[topic.name] = self.create_lifecycle_publisher(
            message_class(topic.type), topic.name, qos(topic)
        )

    def readers(self, topic: Topic) -> int:
        """How many listen to a topic of ours."""
        return int(self._publishers_by_topic[topic.name].get_subscription_count())

    @property
    def failure(self) -> str:
        """Why the last transition failed; empty when it did not."""
        return self._failure

    def send(self, topic: Topic, message: Message) -> None:
        self.send_ros(topic, to_ros(message, TYPES))

    def send_ros(self, topic: Topic, message: Any) -> None:
        publisher = self._publishers_by_topic.get(topic.name)
        if publisher is not None and publisher.is_activated:
            self.traffic.sent[topic.name] += 1
            publisher.publish(message)

    def listen(self, topic: Topic, callback: Callable[[Any], None]) -> Any:
        """Subscribe; what the callback raises is reported and nothing else suffers."""

        def guarded(message: Any) -> None:
            try:
                callback(message)
            except MinicpmoError as error:
                self.troubles.add(topic.name, str(error))
            except Exception as error:
                self.troubles.add(topic.name, f"{type(error).__name__}: {error}")
                self.get_logger().debug(traceback.format_exc())
            finally:
                self.traffic.received[topic.name] += 1

        return self.create_subscription(message_class(topic.type), topic.name, guarded, qos(topic))

    # -- lifecycle --------------------------------------------------------------------------

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        try:
            if self._parameter_problems:
                raise ConfigError("; ".join(self._parameter_problems))
            self._refuse_twin()
            self.configure()
        except Exception as error:
            self._free()
            return self._fail("configure", error)
        self.phase, self._failure = "inactive", ""
        return super().on_configure(state)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        # Publishers first: what activate() publishes must go out.
        result = super().on_activate(state)
        self.phase = "active"
        try:
            self.activate()
        except Exception as error:
            self.phase = "inactive"
            super().on_deactivate(state)
            return self._fail("activate", error)
        self._failure = ""
        return result

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        self._try(self.deactivate)
        self.phase = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        self._free()
        self.phase = "unconfigured"
        return super().on_cleanup(state)

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        if self.active:
            self._try(self.deactivate)
        self._free()
        self.phase = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        self._free()
        self.phase = "unconfigured"
        return SUCCESS

    def _free(self) -> None:
        self._try(self.cleanup)
        for publisher in self._publishers_by_topic.values():
            self.destroy_lifecycle_publisher(publisher)
        self._publishers_by_topic.clear()

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self.troubles.add(step.__name__, f"{type(error).__name__}: {error}")

    def _fail(self, step: str, error: Exception) -> TransitionCallbackReturn:
        ours = isinstance(error, MinicpmoError)
        self._failure = str(error) if ours else f"{type(error).__name__}: {error}"
        self.get_logger().error(f"{step} failed: {self._failure}")
        if not ours:
            self.get_logger().error("".join(traceback.format_exception(error)))
        return FAILURE

    def _refuse_twin(self) -> None:
        name, space = self.get_name(), self.get_namespace()
        twins = self.get_node_names_and_namespaces().count((name, space))
        if twins > 1:
            full = f"{space.rstrip('/')}/{name}"
            raise ConfigError(
                f"a node named {full} runs already: stop it, or start this one in another namespace"
            )

    # -- parameters -------------------------------------------------------------------------

    def _declare(self) -> list[str]:
        """Declare the table's parameters; returns what is wrong with the values given."""
        # What the command line or a YAML file says; rclpy has no public way to see unknown names.
        given = self._parameter_overrides
        problems = [parameters.unknown(self.kind, list(given))]
        for p in parameters.TABLE[self.kind]:
            value = p.default
            if p.name in given:
                try:
                    value = p.check(given[p.name].value)
                except ConfigError as error:
                    problems.append(str(error))
            descriptor = ParameterDescriptor(
                description=p.description + (f" [{p.unit}]" if p.unit else ""),
                additional_constraints=p.range_text if p.choices else "",
            )
            if p.low is not None and isinstance(p.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=p.low, to_value=p.high)
                ]
            elif p.low is not None:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(p.low), to_value=int(p.high))
                ]
            self.declare_parameter(p.name, value, descriptor, ignore_override=True)
        return [text for text in problems if text]

    def _on_set(self, changes: list[Any]) -> SetParametersResult:
        table = {p.name: p for p in parameters.TABLE[self.kind]}
        for change in changes:
            p = table.get(change.name)
            if p is None:
                continue
            try:
                value = p.check(change.value)
                if self.phase != "unconfigured" and not p.live:
                    raise ConfigError(
                        f"parameter '{p.name}' cannot change while the node is {self.phase}: "
                        "deactivate and clean up the node first"
                    )
            except ConfigError as error:
                return SetParametersResult(successful=False, reason=str(error))
            if self.phase != "unconfigured":
                self.live_change(p.name, value)
            else:
                self._parameter_problems = [
                    text for text in self._parameter_problems if f"'{p.name}'" not in text
                ]
        return SetParametersResult(successful=True)

    # -- diagnostics ------------------------------------------------------------------------

    def diagnose(self) -> None:
        now_s = time.monotonic()
        rates = self.traffic.rates(max(1e-3, now_s - self._diagnosed_s))
        self._diagnosed_s = now_s
        level = diagnostics.ERROR if self._failure else diagnostics.OK
        node = Status("node", level, self._failure or self.phase, {"phase": self.phase, **rates})
        try:
            more = self.statuses()
        except Exception as error:
            more = [Status("diagnostics", diagnostics.ERROR, f"{type(error).__name__}: {error}")]
        self._diagnostics.publish(
            diagnostics.diagnostic_array(
                self.get_clock().now().to_msg(),
                self.get_fully_qualified_name(),
                [node, self.troubles.status("troubles"), *more],
            )
        )


def seconds(ns: int) -> float:
    return ns / NS_PER_S

"""Run nodes until the process is told to stop: one executor thread for all of them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from minicpmo_ros.nodes.base import SUCCESS, StackNode

# Time for discovery to see a node of the same name before ours is configured.
START_S = 0.3


def run_nodes(
    kinds: Sequence[Callable[[], StackNode]],
    args: list[str] | None = None,
    beside: Sequence[Callable[[], Any]] = (),
) -> None:
    """Make, start and spin the nodes; stop sound, free devices and leave nothing on the way out.

    beside: plain nodes without a lifecycle, spun on the same thread. The parameter autostart (default true) of each node configures and activates it; one that fails
    says why and stays unconfigured while the others run.
    """
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    stop = _StopOnSignal()
    executor = SingleThreadedExecutor()
    nodes = [kind() for kind in kinds]
    others = [kind() for kind in beside]
    try:
        for other in others:
            executor.add_node(other)
        for node in nodes:
            executor.add_node(node)
            start_later(node)
        while rclpy.ok() and not stop.asked:
            executor.spin_once(timeout_sec=0.2)
    except ExternalShutdownException:
        pass
    finally:
        for node in reversed(nodes):
            _quietly(node.trigger_shutdown)
            executor.remove_node(node)
            _quietly(node.destroy_node)
        for other in others:
            _quietly(other.destroy_node)
        executor.shutdown()
        rclpy.try_shutdown()


def start_later(node: StackNode) -> None:
    """Configure and activate the node once discovery has had a moment."""
    autostart = node.declare_parameter("autostart", True).value
    if not autostart:
        return
    from rclpy.clock import Clock, ClockType

    def start() -> None:
        timer.cancel()
        bring_up(node)

    timer = node.create_timer(START_S, start, clock=Clock(clock_type=ClockType.STEADY_TIME))


def bring_up(node: StackNode) -> bool:
    """Configure and activate; the node has said why when this is false."""
    done: TransitionCallbackReturn = node.trigger_configure()
    if done == SUCCESS:
        done = node.trigger_activate()
    return bool(done == SUCCESS)


class _StopOnSignal:
    """SIGINT and SIGTERM end the loop, so that the nodes shut down in order; a second one kills."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            sys.exit(1)
        self.asked = True


def _quietly(step: Callable[[], Any]) -> None:
    try:
        step()
    except Exception as error:  # on the way out nothing may keep the next node from stopping
        print(f"shutdown: {type(error).__name__}: {error}", file=sys.stderr)

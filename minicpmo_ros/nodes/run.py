"""Run nodes until the process is told to stop: one executor thread for all of them."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from minicpmo_ros.errors import ConfigError, MinicpmoError
from minicpmo_ros.nodes.base import SUCCESS, StackNode

# Time for discovery to see a node of the same name before ours is configured; 0.3 s were not enough
# on a machine under load.
START_S = 1.0
# A node started again may find its predecessor still there: on its way out, or dead and remembered
# by whoever told of it (a discovery server, until a lease of 20 s has run out).
GHOST_S = 30.0
RETRY_S = 2.0
# On the way out: time for results of goals and the last reports to be delivered.
PARTING_S = 0.2
IMPATIENT_S = 1.0


def run_nodes(
    kinds: Sequence[Callable[[], StackNode]],
    args: list[str] | None = None,
    beside: Sequence[Callable[[], Any]] = (),
) -> None:
    """Make, start and spin the nodes; stop sound, free devices and leave nothing on the way out.

    beside: plain nodes without a lifecycle, spun on the same thread. A node whose parameter
    autostart is true (the default) is configured and activated; one that fails says why and stays
    unconfigured while the others run. Raises ConfigError for arguments that ROS cannot take.
    """
    stop = _StopOnSignal()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:
        stop.undo()
        raise ConfigError(f"ROS does not start: {_reason(error)}") from error
    executor = SingleThreadedExecutor()
    nodes: list[StackNode] = []
    others: list[Any] = []
    try:
        for make in beside:
            others.append(make())
            executor.add_node(others[-1])
        for kind in kinds:
            nodes.append(_made(kind))
            nodes[-1].stop_asked = lambda: stop.asked
            executor.add_node(nodes[-1])
            start_later(nodes[-1])
        while rclpy.ok() and not stop.asked:
            _spin_once(executor, 0.2)
    except ExternalShutdownException:
        pass
    finally:
        _part(executor, nodes)
        for node in [*nodes, *others]:
            executor.remove_node(node)
            _quietly(node.destroy_node)
        executor.shutdown()
        rclpy.try_shutdown()
        stop.undo()


def run_process(*kinds: Callable[[], StackNode]) -> int:
    """What an executable does: run the nodes; exit status 1 and one line where that cannot be."""
    try:
        run_nodes(kinds)
    except MinicpmoError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _made(kind: Callable[[], StackNode]) -> StackNode:
    try:
        return kind()
    except (
        Exception
    ) as error:  # a wrong use_sim_time, say, on which rclpy does not even make a node
        raise ConfigError(f"a node cannot be made: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Without the places in the sources of ROS."""
    return str(error).partition(", at /")[0]


def start_later(node: StackNode) -> None:
    """Configure and activate the node once discovery has had a moment."""
    if not node.value("autostart"):
        return
    began_s = time.monotonic()
    due_s = began_s + START_S

    def start() -> None:
        nonlocal due_s
        if time.monotonic() < due_s:
            return
        due_s = time.monotonic() + RETRY_S
        # Whoever configures the node by hand meanwhile has taken over.
        if node.phase == "unconfigured":
            if bring_up(node):
                node.get_logger().info(node.phase)
            elif node.met_twin and time.monotonic() - began_s < GHOST_S:
                return
        stop()

    stop = node.steadily(START_S / 10, start)


def bring_up(node: StackNode) -> bool:
    """Configure and activate; the node has said why when this is false."""
    done: TransitionCallbackReturn = node.trigger_configure()
    if done == SUCCESS:
        done = node.trigger_activate()
    return bool(done == SUCCESS)


def _spin_once(executor: SingleThreadedExecutor, timeout_s: float) -> None:
    """What a callback raises is told, and the other callbacks go on.

    Before Kilted rclpy itself raises where somebody asks for a transition that there is not.
    """
    try:
        executor.spin_once(timeout_sec=timeout_s)
    except ExternalShutdownException:
        raise
    except Exception:
        get_logger("minicpmo").error(f"in a callback: {traceback.format_exc()}")
        time.sleep(0.01)  # one that fails for ever must not take the whole core


def _part(executor: SingleThreadedExecutor, nodes: list[StackNode]) -> None:
    """Silence first; then whoever waits for an answer gets it; then everything is freed."""
    for node in reversed(nodes):
        if node.active:
            _quietly(node.trigger_deactivate)
    end_s = time.monotonic() + PARTING_S
    while nodes and rclpy.ok() and (left_s := end_s - time.monotonic()) > 0:
        _quietly(lambda left_s=left_s: executor.spin_once(timeout_sec=left_s))
    for node in reversed(nodes):
        if node.phase != "finalized":
            _quietly(node.trigger_shutdown)


class _StopOnSignal:
    """SIGINT and SIGTERM end the loop, so that the nodes shut down in order.

    One more after a second ends the process as it is.
    """

    def __init__(self) -> None:
        self.asked = False
        self._asked_s = 0.0
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._ask) for number in numbers}

    def undo(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        now_s = time.monotonic()
        if not self.asked:
            self.asked, self._asked_s = True, now_s
        elif now_s - self._asked_s > IMPATIENT_S:
            sys.exit(1)


def _quietly(step: Callable[[], Any]) -> None:
    try:
        step()
    except Exception as error:  # on the way out nothing may keep the next node from stopping
        print(f"shutdown: {type(error).__name__}: {error}", file=sys.stderr)

"""Somebody who makes the robot speak and cuts it off: a client of the stack in another process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from minicpmo_ros import topics
from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.messages import Playback, PlaybackEvent

TEXT = (
    "I am a robot, and I am going to tell you a rather long story about everything that happened "
    "in this room today, and I will not stop before somebody asks me to."
)
_PATIENCE_S = 15.0
_PAUSE_S = 0.3


class Interrupter:
    """Uses the stack's own action say and service interrupt; close it, or use `with`.

    Raises MinicpmoError where the stack does not answer.
    """

    def __init__(self, namespace: str, seed: int = 0) -> None:
        import rclpy
        from rclpy.action import ActionClient
        from rclpy.executors import SingleThreadedExecutor

        from minicpmo_ros.action import Say
        from minicpmo_ros.nodes.ros_types import message_class, qos
        from minicpmo_ros.srv import Interrupt
        from minicpmo_ros.wire import playback

        self._say_type, self._interrupt_type = Say, Interrupt
        self._random = random.Random(seed)
        self._heard: list[Playback] = []
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node(
            "interrupter", namespace=namespace, context=self._context, enable_rosout=False
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._say: Any = ActionClient(self._node, Say, "say")
        self._interrupt: Any = self._node.create_client(Interrupt, "interrupt")
        self._node.create_subscription(
            message_class(topics.PLAYBACK.type),
            topics.PLAYBACK.name,
            lambda message: self._heard.append(playback(message)),
            qos(topics.PLAYBACK),
        )
        self._wait(
            lambda: self._say.server_is_ready() and self._interrupt.service_is_ready(),
            "the services of the omni node",
        )

    def interrupt_often(self, times: int, progress: Callable[[int], None]) -> dict[int, int]:
        """Cut off so many turns, each at some moment of its first sentence.

        Returns the ROS time of each call, in ns, by the turn that it cut.
        """
        calls: dict[int, int] = {}
        while len(calls) < times:
            turn, call_ns = self._interrupt_once()
            # Somebody in the recording may have been quicker than this client.
            if turn is not None:
                calls[turn] = call_ns
            self._spin(_PAUSE_S)
            progress(len(calls))
        return calls

    def _interrupt_once(self) -> tuple[int | None, int]:
        """The turn that was cut, None where it had ended by itself, and the time of the call."""
        self._heard.clear()
        self._wait_for(self._say.send_goal_async(self._say_type.Goal(text=TEXT)), "say")
        self._wait(lambda: self._last(PlaybackEvent.STARTED) is not None, "speech to begin")
        started = self._last(PlaybackEvent.STARTED)
        assert started is not None
        self._spin(self._random.uniform(0.1, 0.9))
        call_ns = time.time_ns()
        request = self._interrupt_type.Request(reason="bench")
        answer = self._wait_for(self._interrupt.call_async(request), "interrupt")
        self._wait(lambda: self._ended(started.turn), "the turn's end")
        cut = self._last(PlaybackEvent.INTERRUPTED)
        ours = answer.success and cut is not None and cut.turn == started.turn
        return (started.turn if ours else None), call_ns

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def __enter__(self) -> Interrupter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _last(self, event: PlaybackEvent) -> Playback | None:
        return next((p for p in reversed(self._heard) if p.event is event), None)

    def _ended(self, turn: int) -> bool:
        ends = (PlaybackEvent.FINISHED, PlaybackEvent.INTERRUPTED)
        return any(p.turn == turn and p.event in ends for p in self._heard)

    def _spin(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def _wait_for(self, future: Any, what: str) -> Any:
        self._wait(future.done, f"an answer to {what}")
        return future.result()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + _PATIENCE_S
        while not condition():
            self._executor.spin_once(timeout_sec=0.05)
            if time.monotonic() > end_s:
                raise MinicpmoError(f"the bench waited {_PATIENCE_S:.0f} s for {what}")

"""The actions of the omni node: say (until it was heard) and chat (streamed)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future

from minicpmo_ros import wire
from minicpmo_ros.action import Chat, Say
from minicpmo_ros.brains.api import ChatRequest
from minicpmo_ros.brains.session import OmniSession
from minicpmo_ros.errors import MinicpmoError


@dataclass
class _Saying:
    goal: Any
    turn: int
    done: Future
    heard: str = ""


class Requests:
    """Action servers over one session. Callbacks never wait: a goal is a coroutine on a future."""

    def __init__(self, node: Any, session: OmniSession) -> None:
        self._node = node
        self._session = session
        self._sayings: list[_Saying] = []
        self._servers = [
            ActionServer(
                node,
                Say,
                "say",
                self._say,
                goal_callback=self._accept_say,
                cancel_callback=lambda goal: CancelResponse.ACCEPT,
            ),
            ActionServer(
                node,
                Chat,
                "chat",
                self._chat,
                goal_callback=self._accept_chat,
                cancel_callback=lambda goal: CancelResponse.REJECT,
            ),
        ]

    def close(self) -> None:
        for saying in self._sayings:
            saying.done.set_result(False)
        self._sayings = []
        for server in self._servers:
            server.destroy()

    def watch(self) -> None:
        """Tell the goals how far their speech has been heard; called when something may be new."""
        for saying in list(self._sayings):
            spoken = self._session.spoken(saying.turn)
            if saying.goal.is_cancel_requested and not spoken.ended:
                self._session.interrupt("say cancelled", self._node.now_ns())
                spoken = self._session.spoken(saying.turn)
            if spoken.heard != saying.heard:
                saying.heard = spoken.heard
                saying.goal.publish_feedback(Say.Feedback(turn=saying.turn, heard=spoken.heard))
            if spoken.ended:
                self._sayings.remove(saying)
                saying.done.set_result(spoken.complete)

    def _accept_say(self, goal: Any) -> GoalResponse:
        if not self._node.active or not goal.text.strip():
            why = "the text is empty" if self._node.active else "the node is not active"
            self._node.troubles.add("say", f"goal refused: {why}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    async def _say(self, goal: Any) -> Any:
        wanted = goal.request
        try:
            turn = self._session.say(wanted.text, self._node.now_ns(), wanted.interrupt)
        except MinicpmoError as error:
            goal.abort()
            return Say.Result(success=False, message=str(error))
        saying = _Saying(goal, turn, Future(executor=self._node.executor))
        self._sayings.append(saying)
        complete = await saying.done
        if complete:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        message = "heard to the end" if complete else "cut off before its end"
        return Say.Result(success=bool(complete), message=message, turn=turn, heard=saying.heard)

    def _accept_chat(self, goal: Any) -> GoalResponse:
        if not self._node.active or not self._session.brain.capabilities.chats:
            name = self._session.brain.name
            why = (
                f"the brain '{name}' cannot chat" if self._node.active else "the node is not active"
            )
            self._node.troubles.add("chat", f"goal refused: {why}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    async def _chat(self, goal: Any) -> Any:
        done = Future(executor=self._node.executor)
        answer: list[str] = []

        def take(pieces: Iterator[str]) -> None:  # on the brain's thread
            try:
                for piece in pieces:
                    answer.append(piece)
                    goal.publish_feedback(Chat.Feedback(delta=piece))
            except Exception as error:
                done.set_result(f"{type(error).__name__}: {error}")
            else:
                done.set_result("")

        wanted = goal.request
        try:
            request = ChatRequest(
                wanted.text,
                tuple(wire.compressed_picture(p) for p in wanted.pictures),
                wire.asked_sound(wanted.sound),
                int(wanted.max_tokens),
            )
            self._session.chat(request, take)
        except MinicpmoError as error:
            goal.abort()
            return Chat.Result(success=False, message=str(error))
        problem = await done
        text = "".join(answer)
        if problem:
            goal.abort()
            return Chat.Result(success=False, message=problem, answer=text)
        if wanted.speak:
            self._session.say(text, self._node.now_ns())
        goal.succeed()
        return Chat.Result(success=True, message="answered", answer=text)

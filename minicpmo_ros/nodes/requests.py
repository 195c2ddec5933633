"""The actions of the omni node: say (until it was heard) and chat (streamed)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future

from minicpmo_ros import wire
from minicpmo_ros.action import Chat, Say
from minicpmo_ros.brains.api import ChatRequest
from minicpmo_ros.brains.session import OmniSession
from minicpmo_ros.errors import BrainError, InputError, MinicpmoError
from minicpmo_ros.messages import NS_PER_S
from minicpmo_ros.nodes.diagnostics import text_of

WATCH_S = 0.02  # how often open goals are looked at: a cancelled one falls silent within this
# Speech that nobody has reported as heard so long after it should have ended never will be.
UNHEARD_S = 10
LONGEST_TEXT = 5000  # characters: five minutes or so, of the ten that the speaker's queue holds
FEEDBACK_S = 0.05


@dataclass
class _Saying:
    """A say goal that is open. done gets what went wrong, empty when every word was heard."""

    goal: Any
    turn: int
    done: Future
    heard: str | None = None


class Requests:
    """Action servers over one session. Callbacks never wait: a goal is a coroutine on a future."""

    def __init__(self, node: Any, session: OmniSession) -> None:
        self._node = node
        self._session = session
        self._sayings: list[_Saying] = []
        self._stop_watching: Callable[[], None] | None = None
        self._chats: list[Future] = []
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

    def end(self, why: str) -> None:
        """No goal stays open: what has not succeeded by now is aborted for this reason."""
        self.watch()
        for saying in list(self._sayings):
            self._finish(saying, why)
        for chat in self._chats:
            _settle(chat, why)

    def close(self) -> None:
        self.end("the node was cleaned up")
        for server in self._servers:
            server.destroy()

    def watch(self) -> None:
        """Tell the goals how far their speech has been heard; called when something may be new."""
        for saying in list(self._sayings):
            if saying.goal.is_cancel_requested and not self._session.unsay(saying.turn):
                self._session.interrupt("say cancelled", self._node.now_ns())
            spoken = self._session.spoken(saying.turn)
            if spoken.heard != saying.heard:
                saying.heard = spoken.heard
                saying.goal.publish_feedback(Say.Feedback(turn=saying.turn, heard=spoken.heard))
            if spoken.ended:
                self._finish(saying, "" if spoken.complete else "cut off before its end")
            elif self._is_unheard(saying.turn):
                self._finish(saying, "nobody reports it as heard: does the speaker node run?")

    def _is_unheard(self, number: int) -> bool:
        turn = self._session.turn(number)
        if turn is None or not turn.closed:
            return False
        return bool(self._node.now_ns() > turn.end_ns + UNHEARD_S * NS_PER_S)

    def _finish(self, saying: _Saying, problem: str) -> None:
        self._sayings.remove(saying)
        _settle(saying.done, problem)
        if not self._sayings and self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None

    def _refuse(self, action: str, why: str) -> GoalResponse:
        self._node.troubles.add(action, f"goal refused: {why}")
        return GoalResponse.REJECT

    def _accept_say(self, goal: Any) -> GoalResponse:
        if not self._node.active:
            return self._refuse("say", "the node is not active")
        if not goal.text.strip():
            return self._refuse("say", "the text is empty")
        return GoalResponse.ACCEPT

    async def _say(self, goal: Any) -> Any:
        wanted = goal.request
        try:
            if not self._node.active:
                raise BrainError("the node is not active any more")
            if (length := len(wanted.text)) > LONGEST_TEXT:
                raise InputError(
                    f"the text has {length} characters: say at most {LONGEST_TEXT} at once"
                )
            turn = self._session.say(wanted.text, self._node.now_ns(), wanted.interrupt)
        except MinicpmoError as error:
            goal.abort()
            return Say.Result(success=False, message=str(error))
        saying = _Saying(goal, turn, Future(executor=self._node.executor))
        self._sayings.append(saying)
        if self._stop_watching is None:
            self._stop_watching = self._node.steadily(WATCH_S, self.watch)
        problem = await saying.done
        if not problem:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        message = problem or "heard to the end"
        heard = saying.heard or ""
        return Say.Result(success=not problem, message=message, turn=turn, heard=heard)

    def _accept_chat(self, goal: Any) -> GoalResponse:
        if not self._node.active:
            return self._refuse("chat", "the node is not active")
        if not self._session.brain.capabilities.chats:
            return self._refuse("chat", f"the brain '{self._session.brain.name}' cannot chat")
        return GoalResponse.ACCEPT

    async def _chat(self, goal: Any) -> Any:
        done = Future(executor=self._node.executor)
        self._chats.append(done)
        answer: list[str] = []

        def take(pieces: Iterator[str]) -> None:  # on the brain's thread
            problem = ""
            try:
                for delta in _gathered(pieces):
                    answer.append(delta)
                    goal.publish_feedback(Chat.Feedback(delta=delta))
            except Exception as error:
                problem = text_of(error)
            _settle(done, problem)
            self._node.executor.wake()

        try:
            if not self._node.active:
                raise BrainError("the node is not active any more")
            self._session.chat(_question(goal.request), take)
            problem = await done
        except MinicpmoError as error:
            problem = str(error)
        self._chats.remove(done)
        text = "".join(answer)
        if problem:
            goal.abort()
            return Chat.Result(success=False, message=problem, answer=text)
        message = self._speak(text) if goal.request.speak else "answered"
        goal.succeed()
        return Chat.Result(success=True, message=message, answer=text)

    def _speak(self, text: str) -> str:
        try:
            self._session.say(text, self._node.now_ns())
        except MinicpmoError as error:
            return f"answered, but not aloud: {error}"
        return "answered, also aloud"


def _question(wanted: Any) -> ChatRequest:
    """Raises InputError for pictures or sound that cannot be."""
    return ChatRequest(
        wanted.text,
        tuple(wire.compressed_picture(p) for p in wanted.pictures),
        wire.asked_sound(wanted.sound),
        int(wanted.max_tokens),
    )


def _gathered(pieces: Iterator[str]) -> Iterator[str]:
    """The same text in at most 1 / FEEDBACK_S pieces a second, also when it ends in an error.

    Feedback is kept ten deep on its way to a client: of a burst of tokens most would be lost.
    """
    waiting, sent_s = "", 0.0
    try:
        for piece in pieces:
            waiting += piece
            now_s = time.monotonic()
            if now_s - sent_s >= FEEDBACK_S:
                yield waiting
                waiting, sent_s = "", now_s
    except Exception:
        if waiting:
            yield waiting
        raise
    if waiting:
        yield waiting


def _settle(future: Future, problem: str) -> None:
    if not future.done():
        future.set_result(problem)

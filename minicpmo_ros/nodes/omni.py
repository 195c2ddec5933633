"""The omni node: streams in, units to the brain, decisions, speech and alerts out."""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace
from typing import Any

from std_srvs.srv import Trigger

from minicpmo_ros import topics, wire
from minicpmo_ros.brains.barge_in import BargeIn
from minicpmo_ros.brains.build import OmniSettings, barge_in, build_session
from minicpmo_ros.brains.session import OmniSession
from minicpmo_ros.brains.work import ThreadWorker
from minicpmo_ros.errors import BrainError, MinicpmoError
from minicpmo_ros.messages import (
    Alert,
    Decision,
    Playback,
    SessionState,
    SpeechChunk,
    VoiceActivity,
)
from minicpmo_ros.nodes.base import StackNode, Ticker
from minicpmo_ros.nodes.diagnostics import Status
from minicpmo_ros.nodes.omni_diagnostics import OmniDiagnostics
from minicpmo_ros.nodes.requests import Requests
from minicpmo_ros.nodes.run import run_process
from minicpmo_ros.srv import Interrupt, SetMode, SetPrompt, SetVoice

OUTPUTS = {
    Decision: topics.DECISION,
    SpeechChunk: topics.SPEECH,
    Alert: topics.ALERT,
    VoiceActivity: topics.VOICE,
    SessionState: topics.STATE,
}
CLOCK_S = 0.02  # how often units are looked at whose sound does not come
CLOSE_S = 5.0  # a brain that thinks for longer is left behind


class OmniNode(StackNode):
    def __init__(self, **options: Any) -> None:
        super().__init__("omni", **options)
        self.session: OmniSession | None = None
        self._requests: Requests | None = None
        self._worker: ThreadWorker | None = None
        self._offered: list[Any] = []
        self._listening: list[Any] = []
        self._stop_clock: Ticker | None = None
        self._diagnosis = OmniDiagnostics()
        self._told_percent = 0
        # Epoch and turn to count on from: within a process both only grow.
        self._counted = (0, 0)

    # -- lifecycle --------------------------------------------------------------------------

    def configure(self) -> None:
        settings = OmniSettings(**{f.name: self.value(f.name) for f in fields(OmniSettings)})
        if self.value("image_transport") == "none":
            settings = replace(settings, pictures_per_unit=0)  # no camera is missed
        self._worker = ThreadWorker("brain", lambda error: self.troubles.add("brain", repr(error)))
        self.session = build_session(settings, self._out, self._worker, self.troubles.add)
        self.session.follow(*self._counted)
        self._told_percent = 0
        self.session.open(self._while_opening, 1.0 / self.value("diagnostics_hz"))
        if about := self.session.brain.about:
            self.get_logger().info(f"brain {self.session.brain.name}: {about}")
        for topic in OUTPUTS.values():
            self.advertise(topic)
        self._requests = Requests(self, self.session)
        self._offered = [
            self.create_service(Interrupt, "interrupt", self._on_interrupt),
            self.create_service(SetMode, "set_mode", self._on_set_mode),
            self.create_service(SetPrompt, "set_prompt", self._on_set_prompt),
            self.create_service(SetVoice, "set_voice", self._on_set_voice),
            self.create_service(Trigger, "reset", self._on_reset),
        ]

    def _while_opening(self) -> None:
        """No timer is called while the node is being configured, however long that takes."""
        if self.stop_asked():
            raise BrainError("the process was told to stop while the brain was being opened")
        self.guarded("diagnostics", self.diagnose)
        loading = self.session.loading if self.session is not None else None
        if loading is not None and loading.percent // 10 > self._told_percent // 10:
            self._told_percent = loading.percent
            self.get_logger().info(str(loading))

    def activate(self) -> None:
        assert self.session is not None
        self.session.start(self.now_ns())
        self._stop_clock = self.every(CLOCK_S, self._on_clock)
        self._listening = [
            self.listen(topics.MIC, self._on_audio),
            self.listen(topics.PLAYBACK, self._on_playback),
        ]
        transport = self.value("image_transport")
        if transport == "raw":
            self._listening.append(self.listen(topics.IMAGE, self._on_image))
        elif transport == "compressed":
            self._listening.append(self.listen(topics.IMAGE_COMPRESSED, self._on_compressed))

    def deactivate(self) -> None:
        for subscription in self._listening:
            self.destroy_subscription(subscription)
        self._listening = []
        stop_clock, self._stop_clock = self._stop_clock, None
        if stop_clock is not None:
            stop_clock()
        if self.session is not None:
            self.session.stop(self.now_ns())
        if self._requests is not None:
            self._requests.end("the node was deactivated")

    def cleanup(self) -> None:
        for service in self._offered:
            self.destroy_service(service)
        self._offered = []
        requests, self._requests = self._requests, None
        if requests is not None:
            requests.close()
        worker, self._worker = self._worker, None
        session, self.session = self.session, None
        if session is not None:
            session.close(CLOSE_S)
        elif worker is not None:  # the session could not be built
            worker.close(CLOSE_S)

    def live_change(self, name: str, value: Any) -> None:
        if name == "barge_in_ms" and self.session is not None:
            after_ms = barge_in(self.value("brain"), value)
            self.session.barge_in = BargeIn(after_ms) if after_ms else None

    # -- topics in --------------------------------------------------------------------------

    def _on_audio(self, message: Any) -> None:
        chunk = wire.audio_chunk(message)
        now_ns = self.now_ns()
        self.session.audio(chunk, now_ns)
        self._diagnosis.heard(chunk, now_ns)

    def _on_image(self, message: Any) -> None:
        self._on_picture(wire.picture(message))

    def _on_compressed(self, message: Any) -> None:
        self._on_picture(wire.compressed_picture(message))

    def _on_picture(self, picture: Any) -> None:
        now_ns = self.now_ns()
        self.session.picture(picture, now_ns)
        self._diagnosis.saw(picture, now_ns)

    def _on_playback(self, message: Any) -> None:
        playback: Playback = wire.playback(message)
        self._diagnosis.played(playback, self.session.turn(playback.turn))
        self.session.playback(playback)
        self._requests.watch()

    def _on_clock(self) -> None:
        now_ns = self.now_ns()
        if now_ns:  # simulated time has begun
            self.session.clock(now_ns)

    # -- topics out -------------------------------------------------------------------------

    def _out(self, message: wire.Message) -> None:
        self._diagnosis.sent(message, self.now_ns())
        if isinstance(message, SessionState):
            self._counted = (message.epoch, message.turn)
        self.send(OUTPUTS[type(message)], message)

    # -- services ---------------------------------------------------------------------------

    def _on_interrupt(self, request: Any, response: Any) -> Any:
        if not self.active:
            return _refuse(response, self.phase)
        done = self.session.interrupt(request.reason or "interrupted by request", self.now_ns())
        response.success, response.message = done.success, done.message
        response.epoch, response.heard = done.epoch, done.heard
        return response

    def _on_set_mode(self, request: Any, response: Any) -> Any:
        return self._do(response, lambda now: self.session.set_mode(request.mode, now))

    def _on_set_prompt(self, request: Any, response: Any) -> Any:
        return self._do(
            response,
            lambda now: self.session.set_prompt(request.prompt, request.language, now),
        )

    def _on_set_voice(self, request: Any, response: Any) -> Any:
        self._do(response, lambda now: self.session.set_voice(request.voice, now))
        if self.active:
            with contextlib.suppress(MinicpmoError):  # which the message tells
                response.voices = self.session.brain.voices()
        return response

    def _on_reset(self, request: Any, response: Any) -> Any:
        return self._do(response, lambda now: self.session.reset(now))

    def _do(self, response: Any, change: Any) -> Any:
        if not self.active:
            return _refuse(response, self.phase)
        try:
            response.success, response.message = True, change(self.now_ns())
        except MinicpmoError as error:
            response.success, response.message = False, str(error)
        return response

    # -- diagnostics ------------------------------------------------------------------------

    def statuses(self) -> list[Status]:
        if self.session is None:
            return []
        if not self.active:
            loading = self.session.loading
            return [] if loading is None else [Status("brain", message=str(loading))]
        speakers = self.readers(topics.SPEECH)
        return self._diagnosis.statuses(self.session, self.now_ns(), speakers)


def _refuse(response: Any, phase: str) -> Any:
    response.success, response.message = (
        False,
        f"the omni node is {phase}; activate it first",
    )
    return response


def main() -> int:
    return run_process(OmniNode)

"""The stack that is measured: the four nodes in this process, noting when what happened.

Started by `minicpmo_ros.bench.live` with a JSON file of settings; says "active" on stdout when the
nodes are, or "failed: why", and writes its trace when it is told to end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from minicpmo_ros import topics
from minicpmo_ros.bench.trace import Event, Trace
from minicpmo_ros.messages import AudioChunk, Decision, Playback, PlaybackEvent, SpeechChunk
from minicpmo_ros.nodes.base import StackNode
from minicpmo_ros.nodes.camera import CameraNode
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.omni import OmniNode
from minicpmo_ros.nodes.run import run_nodes
from minicpmo_ros.nodes.speaker import SpeakerNode
from minicpmo_ros.topics import Topic
from minicpmo_ros.wire import Message, stamp_ns

_active: set[str] = set()


def _tell(text: str) -> None:
    print(text, flush=True)


class _Traced(StackNode):
    """What the measured nodes share: a trace, and word of how they came up."""

    def __init__(self, trace: Trace, **options: Any) -> None:
        self._trace = trace
        super().__init__(**options)

    def note(self, event: Event, key: int, value: int = 0, at_ns: int | None = None) -> None:
        """at_ns: ROS time of the event, where it is not now."""
        self._trace.add(event, key, self.now_ns() if at_ns is None else at_ns, value)

    def on_activate(self, state: Any) -> Any:
        result = super().on_activate(state)
        if self.active:
            _active.add(self.kind)
            if len(_active) == len(KINDS):
                _tell("active")
        return result

    def _fail(self, step: str, error: Exception) -> Any:
        _tell(f"failed: the {self.kind} node could not {step}: {error}".replace("\n", " "))
        return super()._fail(step, error)


class TracedCamera(_Traced, CameraNode):
    def send_ros(self, topic: Topic, message: Any) -> None:
        at_ns = self.now_ns()
        super().send_ros(topic, message)
        if topic is topics.IMAGE:
            self.note(Event.PICTURE_OUT, stamp_ns(message.header.stamp), at_ns=at_ns)


class TracedMic(_Traced, MicNode):
    def send(self, topic: Topic, message: Message) -> None:
        at_ns = self.now_ns()
        super().send(topic, message)
        if isinstance(message, AudioChunk):
            self.note(Event.MIC_OUT, message.sequence, message.end_ns, at_ns)


class TracedOmni(_Traced, OmniNode):
    def _on_audio(self, message: Any) -> None:
        self.note(Event.MIC_IN, int(message.sequence))
        super()._on_audio(message)

    def _on_image(self, message: Any) -> None:
        self.note(Event.PICTURE_IN, stamp_ns(message.header.stamp))
        super()._on_image(message)

    def send(self, topic: Topic, message: Message) -> None:
        at_ns = self.now_ns()
        super().send(topic, message)
        if isinstance(message, Decision):
            self.note(Event.DECISION_OUT, message.unit, message.stamp_ns)
            brain_ms = sum(t.ms for t in message.timings if t.stage == "brain")
            self.note(Event.BRAIN, message.unit, round(brain_ms * 1e6))
            self.note(Event.FILLED, message.unit, round(message.audio_filled_ms * 1e6))
        elif isinstance(message, SpeechChunk) and message.sequence == 0:
            self.note(Event.SPEECH_OUT, message.turn, message.stamp_ns, at_ns)

    def _on_interrupt(self, request: Any, response: Any) -> Any:
        at_ns = self.now_ns()
        response = super()._on_interrupt(request, response)
        if response.success:
            self.note(Event.INTERRUPT_IN, response.epoch, at_ns=at_ns)
        return response


class TracedSpeaker(_Traced, SpeakerNode):
    def _on_speech(self, message: Any) -> None:
        if message.sequence == 0:
            self.note(Event.SPEECH_IN, int(message.turn), int(not self.queue.queued_samples))
        super()._on_speech(message)

    def _on_state(self, message: Any) -> None:
        self.note(Event.EPOCH_IN, int(message.epoch))
        super()._on_state(message)

    def send(self, topic: Topic, message: Message) -> None:
        super().send(topic, message)
        if not isinstance(message, Playback):
            return
        if message.event is PlaybackEvent.STARTED:
            self.note(Event.STARTED, message.turn, message.stamp_ns)
        elif message.event is PlaybackEvent.INTERRUPTED:
            self.note(Event.SILENT, message.turn, message.stamp_ns)


KINDS: dict[str, Callable[..., StackNode]] = {
    "camera": TracedCamera,
    "mic": TracedMic,
    "speaker": TracedSpeaker,
    "omni": TracedOmni,
}


def main(settings: Path) -> None:
    """Run until SIGINT or SIGTERM. settings: namespace, parameters by node, capacity, trace."""
    from rclpy.parameter import Parameter

    given = json.loads(settings.read_text())
    trace = Trace(given["capacity"])

    def maker(name: str) -> Callable[[], StackNode]:
        values = [Parameter(k, value=v) for k, v in given["parameters"].get(name, {}).items()]
        return partial(KINDS[name], trace, namespace=given["namespace"], parameter_overrides=values)

    run_nodes([maker(name) for name in KINDS])
    if trace.lost:
        _tell(f"failed: {trace.lost} events did not fit into the trace")
    trace.save(Path(given["trace"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

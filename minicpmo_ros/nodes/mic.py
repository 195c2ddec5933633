"""The microphone node: sound from a device or file, without the robot's own voice, on audio/mic."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from std_srvs.srv import SetBool

from minicpmo_ros import topics, wire
from minicpmo_ros.media.echo import EchoCanceller, EchoConfig
from minicpmo_ros.media.microphone import MicConfig, Microphone, make_microphone
from minicpmo_ros.messages import AudioChunk
from minicpmo_ros.nodes.base import StackNode
from minicpmo_ros.nodes.diagnostics import OK, WARN, Latency, Status
from minicpmo_ros.nodes.reader import Reader
from minicpmo_ros.nodes.run import run_process


class MicNode(StackNode):
    def __init__(self, **options: Any) -> None:
        super().__init__("mic", **options)
        self._microphone: Microphone | None = None
        self._canceller: EchoCanceller | None = None
        # Microphone and played sound come on two threads; the canceller stands one.
        self._cancelling = threading.Lock()
        self._reader: Reader[AudioChunk] | None = None
        self._listening: list[Any] = []
        self._offered: list[Any] = []
        self._muted = False
        self._since_ns = 0
        self._dropped = 0
        self._hop = Latency()

    # -- lifecycle --------------------------------------------------------------------------

    def configure(self) -> None:
        config = MicConfig(
            source=self.value("source"),
            device=self.value("device"),
            chunk_ms=self.value("chunk_ms"),
            loop=self.value("loop"),
            latency_ms=self.value("latency_ms"),
            latency_correction_ms=self.value("latency_correction_ms"),
            frame_id=self.value("frame_id"),
        )
        self._canceller = EchoCanceller(
            EchoConfig(
                mode=self.value("echo_cancellation"),
                noise_suppression=self.value("noise_suppression"),
                delay_ms=self.value("echo_delay_ms"),
            )
        )
        self._dropped = 0
        self._microphone = make_microphone(config, self.now_ns)
        self._microphone.open()
        self.advertise(topics.MIC)
        self._offered = [self.create_service(SetBool, "mute", self._on_mute)]

    def activate(self) -> None:
        self._since_ns = self.now_ns()
        self._listening = [self.listen(topics.PLAYED, self._on_played)]
        assert self._microphone is not None
        read = self._microphone.read
        self._reader = Reader("microphone", read, self._publish, self.troubles.add)

    def deactivate(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()
        for subscription in self._listening:
            self.destroy_subscription(subscription)
        self._listening = []

    def cleanup(self) -> None:
        for service in self._offered:
            self.destroy_service(service)
        self._offered = []
        microphone, self._microphone = self._microphone, None
        if microphone is not None:
            microphone.close()

    # -- sound ------------------------------------------------------------------------------

    def _publish(self, chunk: AudioChunk) -> None:
        if chunk.end_ns <= self._since_ns:
            if self.now_ns() >= self._since_ns:
                self._dropped += 1
                return  # the device heard it while the node was inactive
            self._since_ns = 0  # the clock was set back: nothing will be later than that for long
        # A number that is left out says that sound was lost.
        chunk = replace(chunk, sequence=chunk.sequence - self._dropped)
        if self._muted:
            # Nothing that was said leaves the process; the timeline goes on.
            chunk = replace(chunk, data=np.zeros_like(chunk.data), muted=True)
        else:
            assert self._canceller is not None
            with self._cancelling:
                chunk = self._canceller.clean(chunk)
        self._hop.add_ns(self.now_ns() - chunk.end_ns)
        self.send(topics.MIC, chunk)

    def _on_played(self, message: Any) -> None:
        chunk = wire.audio_chunk(message)
        assert self._canceller is not None
        with self._cancelling:
            self._canceller.played(chunk)

    def _on_mute(self, request: Any, response: Any) -> Any:
        self._muted = bool(request.data)
        response.success = True
        response.message = "muted: only silence is sent" if self._muted else "listening"
        self.get_logger().info(response.message)
        return response

    # -- diagnostics ------------------------------------------------------------------------

    def statuses(self) -> list[Status]:
        if self._microphone is None or self._canceller is None:
            return []
        status = self._microphone.status
        values = {**status.as_dict(), **self._hop.values("capture to published")}
        values["muted"] = self._muted
        device = Status("device", WARN if status.problem else OK, status.problem or "ok", values)
        echo = {"mode": self._canceller.config.mode}
        echo.update((k, f"{v:.1f}") for k, v in asdict(self._canceller.stats).items())
        return [device, Status("echo", OK, "ok", echo)]


def main() -> int:
    return run_process(MicNode)

"""The microphone node: sound from a device or file, without the robot's own voice, on audio/mic."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
from std_srvs.srv import SetBool

from minicpmo_ros import topics, wire
from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.media.echo import EchoCanceller, EchoConfig
from minicpmo_ros.media.microphone import MicConfig, make_microphone
from minicpmo_ros.nodes.base import StackNode
from minicpmo_ros.nodes.diagnostics import OK, WARN, Latency, Status
from minicpmo_ros.nodes.run import run_nodes


class MicNode(StackNode):
    def __init__(self, **options: Any) -> None:
        super().__init__("mic", **options)
        self._microphone: Any = None
        self._canceller: EchoCanceller | None = None
        self._reader: threading.Thread | None = None
        self._running = threading.Event()
        self._muted = False
        self._made: list[Any] = []
        self._hop = Latency()

    # -- lifecycle --------------------------------------------------------------------------

    def configure(self) -> None:
        config = MicConfig(
            source=self.value("source"),
            device=self.value("device"),
            chunk_ms=self.value("chunk_ms"),
            loop=self.value("loop"),
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
        self._microphone = make_microphone(config, self.now_ns)
        self._microphone.open()
        self.advertise(topics.MIC)
        self._made = [self.create_service(SetBool, "mute", self._on_mute)]

    def activate(self) -> None:
        self._played = self.listen(topics.PLAYED, self._on_played)
        self._running.set()
        self._reader = threading.Thread(target=self._read, name="microphone", daemon=True)
        self._reader.start()

    def deactivate(self) -> None:
        self._running.clear()
        if self._reader is not None:
            self._reader.join(2.0)
            self._reader = None
        self.destroy_subscription(self._played)

    def cleanup(self) -> None:
        for service in self._made:
            self.destroy_service(service)
        self._made = []
        if self._microphone is not None:
            self._microphone.close()
            self._microphone = None

    # -- sound ------------------------------------------------------------------------------

    def _read(self) -> None:
        while self._running.is_set():
            try:
                chunk = self._microphone.read(0.2)
                if chunk is None:
                    continue
                if self._muted:
                    # Nothing that was said leaves the process; the timeline goes on.
                    chunk = replace(chunk, data=np.zeros_like(chunk.data), muted=True)
                else:
                    chunk = self._canceller.clean(chunk)
                self._hop.add_ns(self.now_ns() - chunk.end_ns)
                self.send(topics.MIC, chunk)
            except MinicpmoError as error:
                self.troubles.add("microphone", str(error))
                self._running.wait(0.2)
            except Exception as error:
                if self._running.is_set():
                    self.troubles.add("microphone", f"{type(error).__name__}: {error}")

    def _on_played(self, message: Any) -> None:
        self._canceller.played(wire.audio_chunk(message))

    def _on_mute(self, request: Any, response: Any) -> Any:
        self._muted = bool(request.data)
        response.success = True
        response.message = "muted: only silence is sent" if self._muted else "listening"
        self.get_logger().info(response.message)
        return response

    # -- diagnostics ------------------------------------------------------------------------

    def statuses(self) -> list[Status]:
        if self._microphone is None:
            return []
        status = self._microphone.status
        values = {**status.as_dict(), **self._hop.values("capture to published")}
        values["muted"] = self._muted
        device = Status("device", WARN if status.problem else OK, status.problem or "ok", values)
        return [device, Status("echo", OK, "ok", self._canceller.status.as_dict())]


def main() -> None:
    run_nodes([MicNode])

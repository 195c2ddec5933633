"""The speaker node: plays speech, says what has been heard, falls silent when the epoch grows."""

from __future__ import annotations

from typing import Any

from minicpmo_ros import topics, wire
from minicpmo_ros.media.playback import PlayQueue
from minicpmo_ros.media.speaker import SpeakerConfig, make_speaker
from minicpmo_ros.messages import PlaybackEvent
from minicpmo_ros.nodes.base import StackNode
from minicpmo_ros.nodes.diagnostics import OK, WARN, Latency, Status
from minicpmo_ros.nodes.run import run_nodes

POLL_S = 0.02  # how often what has sounded is reported


class SpeakerNode(StackNode):
    def __init__(self, **options: Any) -> None:
        super().__init__("speaker", **options)
        self.queue = PlayQueue()
        self._speaker: Any = None
        self._listening: list[Any] = []
        self._stop_clock: Any = None
        self._epoch = 0
        self._stale = 0
        self._to_device = Latency()

    # -- lifecycle --------------------------------------------------------------------------

    def configure(self) -> None:
        config = SpeakerConfig(
            sink=self.value("sink"),
            device=self.value("device"),
            block_ms=self.value("block_ms"),
            latency_correction_ms=self.value("latency_correction_ms"),
        )
        self.queue = PlayQueue()
        self._speaker = make_speaker(config, self.queue, self.now_ns)
        self._speaker.open()
        self.advertise(topics.PLAYBACK)
        self.advertise(topics.PLAYED)

    def activate(self) -> None:
        self._listening = [
            self.listen(topics.SPEECH, self._on_speech),
            self.listen(topics.STATE, self._on_state),
        ]
        self._stop_clock = self.every(POLL_S, self._on_clock)

    def deactivate(self) -> None:
        # Silence first: what is queued must not sound after this.
        self._epoch += 1
        self.queue.interrupt(self._epoch)
        for subscription in self._listening:
            self.destroy_subscription(subscription)
        self._listening = []
        self._stop_clock()
        self._report()

    def cleanup(self) -> None:
        if self._speaker is not None:
            self._speaker.close()
            self._speaker = None

    # -- topics -----------------------------------------------------------------------------

    def _on_speech(self, message: Any) -> None:
        chunk = wire.speech_chunk(message)
        self._to_device.add_ns(self.now_ns() - chunk.stamp_ns)
        if not self.queue.push(chunk):
            self._stale += 1

    def _on_state(self, message: Any) -> None:
        epoch = int(message.epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self.queue.interrupt(epoch)
            self._on_clock()

    def _on_clock(self) -> None:
        now_ns = self.now_ns()
        if now_ns:
            self._speaker.advance(now_ns)
            self._report()

    def _report(self) -> None:
        for report in self.queue.reports():
            self.send(topics.PLAYBACK, report)
            if report.event is PlaybackEvent.INTERRUPTED:
                self.get_logger().info(f"turn {report.turn} cut off after: {report.heard!r}")
        for chunk in self.queue.played():
            self.send(topics.PLAYED, chunk)

    # -- diagnostics ------------------------------------------------------------------------

    def statuses(self) -> list[Status]:
        if self._speaker is None:
            return []
        status = self._speaker.status
        values = {**status.as_dict(), **self._to_device.values("planned to queued")}
        values["chunks of an older epoch"] = self._stale
        return [Status("device", WARN if status.problem else OK, status.problem or "ok", values)]


def main() -> None:
    run_nodes([SpeakerNode])

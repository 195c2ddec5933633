"""The speaker node: plays speech, says what has been heard, falls silent when the epoch grows."""

from __future__ import annotations

import threading
from typing import Any

from minicpmo_ros import topics, wire
from minicpmo_ros.media.playback import PlayQueue
from minicpmo_ros.media.speaker import Speaker, SpeakerConfig, make_speaker
from minicpmo_ros.messages import PlaybackEvent
from minicpmo_ros.nodes.base import StackNode, Ticker
from minicpmo_ros.nodes.diagnostics import OK, WARN, Latency, Status
from minicpmo_ros.nodes.run import run_process

POLL_S = 0.02  # how often what has sounded is reported


class SpeakerNode(StackNode):
    def __init__(self, **options: Any) -> None:
        super().__init__("speaker", **options)
        self.queue = PlayQueue()
        self._speaker: Speaker | None = None
        self._listening: list[Any] = []
        self._stop_clock: Ticker | None = None
        # Clock and interruption come on two threads; the account must go out in order.
        self._playing = threading.Lock()
        self._session = (0, 0)
        self._stale = 0
        self._to_device = Latency()

    # -- lifecycle --------------------------------------------------------------------------

    def configure(self) -> None:
        config = SpeakerConfig(
            sink=self.value("sink"),
            device=self.value("device"),
            block_ms=self.value("block_ms"),
            latency_ms=self.value("latency_ms"),
            latency_correction_ms=self.value("latency_correction_ms"),
        )
        self.queue = PlayQueue(self.value("frame_id"))
        self._session = (0, 0)
        self._speaker = make_speaker(config, self.queue, self.now_ns)
        self._speaker.open()
        self.advertise(topics.PLAYBACK)
        self.advertise(topics.PLAYED)

    def activate(self) -> None:
        # The state first: of an interruption and speech that wait together, it is read before.
        self._listening = [
            self.listen(topics.STATE, self._on_state),
            self.listen(topics.SPEECH, self._on_speech),
        ]
        self._stop_clock = self.every(POLL_S, self._on_clock)

    def deactivate(self) -> None:
        # Silence first: what waits must not sound after this.
        self.queue.clear()
        for subscription in self._listening:
            self.destroy_subscription(subscription)
        self._listening = []
        stop_clock, self._stop_clock = self._stop_clock, None
        if stop_clock is not None:
            stop_clock()
        self._report()

    def cleanup(self) -> None:
        speaker, self._speaker = self._speaker, None
        if speaker is not None:
            speaker.close()

    # -- topics -----------------------------------------------------------------------------

    def _on_speech(self, message: Any) -> None:
        chunk = wire.speech_chunk(message)
        self._to_device.add_ns(self.now_ns() - chunk.stamp_ns)
        if not self.queue.push(chunk):
            self._stale += 1

    def _on_state(self, message: Any) -> None:
        session = (int(message.epoch), int(message.turn))
        before, self._session = self._session, session
        if session < before:
            # Epochs and turns only grow: the session was made anew and counts from 0 again.
            self.queue.reset()
        if session[0] != before[0]:
            self.queue.interrupt(session[0])
            self._on_clock()

    def _on_clock(self) -> None:
        with self._playing:
            now_ns = self.now_ns()
            if now_ns and self._speaker is not None:
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
        values["chunks refused: of an older epoch, or twice"] = self._stale
        return [Status("device", WARN if status.problem else OK, status.problem or "ok", values)]


def main() -> int:
    return run_process(SpeakerNode)

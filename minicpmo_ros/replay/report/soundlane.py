"""A lane of sound while it is read: its outline, and where nothing came or the source was muted."""

from __future__ import annotations

from minicpmo_ros.messages import NS_PER_MS, AudioChunk
from minicpmo_ros.replay.report.envelope import EnvelopeBuilder
from minicpmo_ros.replay.report.sound import mono
from minicpmo_ros.replay.report.view import SoundLane, Span

_TORN_NS = 20 * NS_PER_MS  # stamps jitter by less between chunks that follow each other


class SoundLaneBuilder:
    """Takes the chunks of one topic in the order in which they were logged."""

    def __init__(self, bins: int) -> None:
        self._envelope = EnvelopeBuilder(bins)
        self._chunks = 0
        self._sound_ns = 0
        self._end_ns: int | None = None
        self._lost: list[Span] = []
        self._muted: list[Span] = []

    def add(self, chunk: AudioChunk) -> None:
        self._chunks += 1
        self._sound_ns += chunk.duration_ns
        if self._end_ns is not None and chunk.stamp_ns > self._end_ns + _TORN_NS:
            self._lost.append(Span(self._end_ns, chunk.stamp_ns))
        self._end_ns = max(chunk.end_ns, self._end_ns or chunk.end_ns)
        if chunk.muted:
            before = self._muted[-1] if self._muted else None
            if before is not None and chunk.stamp_ns <= before.stop_ns + _TORN_NS:
                self._muted[-1] = Span(before.start_ns, chunk.end_ns)
            else:
                self._muted.append(Span(chunk.stamp_ns, chunk.end_ns))
        self._envelope.add(chunk.stamp_ns, mono(chunk.data), chunk.sample_rate)

    def build(self, stop_ns: int | None, patience_ns: int = 1_000 * NS_PER_MS) -> SoundLane:
        """stop_ns: end of the recording; a source silent for patience_ns until then was lost."""
        lost = list(self._lost)
        end = self._end_ns
        if stop_ns is not None and end is not None and stop_ns - end > patience_ns:
            lost.append(Span(end, stop_ns))
        return SoundLane(
            self._chunks,
            self._sound_ns / NS_PER_MS,
            self._envelope.build(),
            tuple(lost),
            tuple(self._muted),
        )

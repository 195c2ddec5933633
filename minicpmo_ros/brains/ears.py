"""Who has spoken when: the stretches of voice in the sound, and whether one stops the robot."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from minicpmo_ros.brains.api import VoiceSpan
from minicpmo_ros.brains.barge_in import BargeIn
from minicpmo_ros.brains.settings import VoiceSense
from minicpmo_ros.brains.turns import Turn
from minicpmo_ros.messages import AudioChunk, VoiceActivity
from minicpmo_ros.timeline.unit import Unit


class Ears:
    """Voice activity with a memory for as many stretches as a few units can hold."""

    def __init__(self, voice: VoiceSense) -> None:
        self._voice = voice
        self._spans: deque[VoiceSpan] = deque(maxlen=64)
        self._last: VoiceActivity | None = None

    def feed(self, chunk: AudioChunk) -> list[VoiceActivity]:
        """Where voice starts and stops in a chunk."""
        events = self._voice.feed(chunk)
        self._last = events[-1] if events else self._last
        for event in events:
            if event.speaking:
                self._spans.append(VoiceSpan(event.stamp_ns, None))
            elif self._spans and self._spans[-1].stop_ns is None:
                self._spans[-1] = VoiceSpan(self._spans[-1].start_ns, event.stamp_ns)
        return events

    def voice_in(self, unit: Unit) -> tuple[VoiceSpan, ...]:
        """The stretches that overlap the unit."""
        return tuple(
            span
            for span in self._spans
            if span.start_ns < unit.end_ns
            and (span.stop_ns is None or span.stop_ns > unit.start_ns)
        )

    def barge_in(self, rule: BargeIn | None, turn: Turn | None) -> bool:
        """The voice that goes on stops the robot's turn."""
        since_ns = self._voice.speaking_since_ns
        if rule is None or since_ns is None or turn is None:
            return False
        return rule.stops(since_ns, self._voice.voiced_until_ns, turn.start_ns + turn.shift_ns)

    def lose(self) -> list[VoiceActivity]:
        """No sound comes any more: a voice that went on has stopped where it was heard last."""
        if self._last is None or not self._last.speaking:
            return []
        stop_ns = max(self._voice.voiced_until_ns, self._last.stamp_ns)
        self._last = replace(self._last, stamp_ns=stop_ns, speaking=False)
        if self._spans and self._spans[-1].stop_ns is None:
            self._spans[-1] = VoiceSpan(self._spans[-1].start_ns, stop_ns)
        self._voice.reset()
        return [self._last]

    def reset(self) -> None:
        """Sound begins anew."""
        self._last = None
        self._voice.reset()

    def forget(self) -> None:
        """What was heard is no longer known."""
        self._spans.clear()

"""Endpointing: when a person's turn begins, goes on and has ended, from voice activity alone."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from minicpmo_ros.brains.api import VoiceSpan


class Phase(Enum):
    """Where the person's turn stands at the end of a unit."""

    SILENCE = "silence"
    VOICE = "voice"
    PAUSE = "pause"  # silent, but not yet for long enough
    ENDED = "ended"
    TOO_SHORT = "too short"  # ended with less speech than a turn has


class Endpointer:
    """Follows one turn after the other; times are ns of ROS time.

    speech_ns: speech heard in the turn so far, pauses not counted.
    """

    def __init__(self, endpoint_ns: int, min_turn_ns: int) -> None:
        self._endpoint_ns = endpoint_ns
        self._min_turn_ns = min_turn_ns
        self.reset()

    def reset(self) -> None:
        """Forget a turn that has begun."""
        self.begun = False
        self.speech_ns = 0
        self.silent_ns = 0
        self._last_voice_ns = 0

    def follow(
        self, voice: Sequence[VoiceSpan], start_ns: int, end_ns: int, not_before_ns: int
    ) -> Phase:
        """Take in the voice of unit [start_ns, end_ns); what sounds before not_before_ns is no
        person's voice.

        A span that was open in the last unit and is missing now has stopped before this one.
        """
        if self.silent_ns >= self._endpoint_ns:
            self.reset()
        # A turn's first span may have begun before its unit, while the robot still spoke.
        earliest_ns = max(not_before_ns, start_ns) if self.begun else not_before_ns
        counted_ns = earliest_ns
        going_on = False
        for span in sorted(voice, key=lambda span: span.start_ns):
            stop_ns = end_ns if span.stop_ns is None else min(span.stop_ns, end_ns)
            from_ns = max(span.start_ns, counted_ns)
            if stop_ns <= from_ns or stop_ns <= start_ns:
                continue
            self.begun = True
            self.speech_ns += stop_ns - from_ns
            self._last_voice_ns = counted_ns = stop_ns
            going_on = span.stop_ns is None
        if not self.begun:
            return Phase.SILENCE
        self.silent_ns = 0 if going_on else end_ns - self._last_voice_ns
        if going_on:
            return Phase.VOICE
        if self.silent_ns < self._endpoint_ns:
            return Phase.PAUSE
        return Phase.ENDED if self.speech_ns >= self._min_turn_ns else Phase.TOO_SHORT

"""The first reflex: the robot falls silent when somebody speaks while it does."""

from __future__ import annotations

from minicpmo_ros.messages import NS_PER_MS


class BargeIn:
    """Decides on stamps alone when voice over the robot's own speech is meant to stop it."""

    def __init__(self, after_ms: int) -> None:
        self._after_ns = after_ms * NS_PER_MS

    def stops(self, voice_from_ns: int, voice_until_ns: int, speech_from_ns: int) -> bool:
        """True when voice [voice_from_ns, voice_until_ns) overlaps speech for long enough.

        Only the part since the robot began to sound counts: somebody who ends a sentence while the
        robot starts has not interrupted it.
        """
        return voice_until_ns - max(voice_from_ns, speech_from_ns) >= self._after_ns

"""Watches one stream: is it alive, or has nothing come for too long?"""

from __future__ import annotations

from minicpmo_ros.messages import NS_PER_MS


class Watch:
    """Since when a device has given nothing. Times are ns of ROS time."""

    def __init__(self, device: str, gives: str, lost_ms: int) -> None:
        self.device = device
        self._gives = gives
        self._lost_ms = lost_ms
        self._seen_ns: int | None = None
        self._lost = False

    def seen(self, now_ns: int) -> None:
        """Something came; or the watch begins."""
        self._seen_ns = now_ns

    def lost_ms(self, now_ns: int) -> float:
        """How long nothing has come, 0 while that is less than what counts as lost."""
        if self._seen_ns is None:
            return 0.0
        silent_ms = (now_ns - self._seen_ns) / NS_PER_MS
        return silent_ms if silent_ms >= self._lost_ms else 0.0

    def check(self, now_ns: int) -> str:
        """A sentence when the device was lost or came back since the last check, else nothing."""
        lost = self.lost_ms(now_ns) > 0
        if lost == self._lost:
            return ""
        self._lost = lost
        if lost:
            return f"the {self.device} is lost: no {self._gives} for {self._lost_ms} ms"
        return f"the {self.device} is back"

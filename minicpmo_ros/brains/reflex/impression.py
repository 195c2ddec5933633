"""What was sensed while a person's turn lasted: the material of an answer."""

from __future__ import annotations

from dataclasses import dataclass

from minicpmo_ros.brains.api import Surroundings
from minicpmo_ros.brains.reflex.hearing import Heard
from minicpmo_ros.brains.reflex.seeing import Seen
from minicpmo_ros.brains.reflex.sight import Motion, View
from minicpmo_ros.timeline.unit import Unit


@dataclass
class Impression:
    """Grows by one unit at a time; levels in dBFS, times in ms.

    motion: the strongest of the turn, None where none could be told. covered: at the turn's end.
    """

    view: View | None = None
    motion: Motion | None = None
    covered: bool = False
    unreadable: int = 0
    camera_lost_ms: float = 0.0
    missed_ms: float = 0.0
    voice_dbfs: float | None = None
    background_dbfs: float | None = None

    def add(self, unit: Unit, around: Surroundings, seen: Seen, heard: Heard) -> None:
        """Take in one unit of the turn."""
        if seen.view is not None:
            self.view = seen.view
            self.covered = bool(seen.covered)
        if seen.motion is not None and (
            self.motion is None or seen.motion.fraction > self.motion.fraction
        ):
            self.motion = seen.motion
        self.unreadable += len(seen.unreadable)
        self.camera_lost_ms = around.camera_lost_ms
        self.missed_ms += unit.filled_ms
        self.background_dbfs = heard.background_dbfs
        if heard.voice_dbfs is not None and (
            self.voice_dbfs is None or heard.voice_dbfs > self.voice_dbfs
        ):
            self.voice_dbfs = heard.voice_dbfs

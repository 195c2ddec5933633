"""Pictures in order of capture, a few for each unit, until their unit closes."""

from __future__ import annotations

from bisect import bisect_left, insort

from minicpmo_ros.messages import Picture
from minicpmo_ros.timeline.config import TimelineConfig
from minicpmo_ros.timeline.stats import TimelineStats


def _order(picture: Picture) -> tuple[int, str]:
    return picture.stamp_ns, picture.frame_id


class PictureTrack:
    """Keeps the newest `pictures_per_unit` of each unit [origin + k, origin + k + 1) still open."""

    def __init__(self, config: TimelineConfig, stats: TimelineStats, origin_ns: int) -> None:
        self._most = config.pictures_per_unit
        self._unit_ns = config.unit_ns
        self._stats = stats
        self._origin_ns = origin_ns
        self._open = 0
        self._held: dict[int, list[Picture]] = {}

    def add(self, picture: Picture) -> None:
        self._stats.pictures_received += 1
        unit = (picture.stamp_ns - self._origin_ns) // self._unit_ns
        if unit < self._open and self._open > 0:
            self._stats.pictures_late += 1
            return
        held = self._held.setdefault(unit, [])
        place = bisect_left(held, _order(picture), key=_order)
        if place < len(held) and _order(held[place]) == _order(picture):
            self._stats.pictures_dropped += 1
            return
        insort(held, picture, key=_order)
        self._stats.pictures_pending += 1
        if len(held) > self._most:
            self._drop(held[: -self._most] if self._most else held)
            del held[: len(held) - self._most]

    def move_origin(self, origin_ns: int) -> None:
        """The first unit begins elsewhere than was thought; none has been closed yet."""
        held = [picture for unit in sorted(self._held) for picture in self._held[unit]]
        self._held, self._origin_ns = {}, origin_ns
        self._stats.pictures_received -= len(held)
        self._stats.pictures_pending -= len(held)
        for picture in held:
            self.add(picture)

    def waiting(self, unit: int) -> bool:
        """Whether a picture is held for this unit or a later one."""
        return any(number >= unit and held for number, held in self._held.items())

    def take(self, unit: int) -> tuple[Picture, ...]:
        """The pictures of the unit, oldest first; closes it and all before it."""
        taken = self._held.pop(unit, [])
        self._stats.pictures_used += len(taken)
        self._stats.pictures_pending -= len(taken)
        self.skip_to(unit + 1)
        return tuple(taken)

    def skip_to(self, unit: int) -> None:
        """Close all units before this one without taking from them."""
        self._open = unit
        for number in [number for number in self._held if number < unit]:
            self._drop(self._held.pop(number))

    def clear(self) -> None:
        for held in self._held.values():
            self._drop(held)
        self._held.clear()

    def _drop(self, pictures: list[Picture]) -> None:
        self._stats.pictures_pending -= len(pictures)
        self._stats.pictures_dropped += len(pictures)

"""Follows the pictures from unit to unit: what moves, whether the camera is covered, the light."""

from __future__ import annotations

from dataclasses import dataclass

from minicpmo_ros.brains.reflex.sight import Motion, View, is_covered, look, motion
from minicpmo_ros.errors import InputError
from minicpmo_ros.timeline.unit import Unit

MEMORY_UNITS = 3  # an older view says nothing about what moves now


@dataclass(frozen=True, eq=False)
class Seen:
    """What a unit's pictures showed.

    view: of the newest picture that could be read, None where there was none. motion: None where it
    cannot be told. covered: None without a view. light: +1 gone on, -1 gone off, 0 no change.
    unreadable: one message for each picture that could not be read.
    """

    view: View | None = None
    motion: Motion | None = None
    covered: bool | None = None
    light: int = 0
    unreadable: tuple[str, ...] = ()
    stamps: tuple[int, ...] = ()


class Seeing:
    """Looks at the newest readable picture of each unit: one decoded picture a unit, as a rule."""

    def __init__(self, flat_contrast: float, light_jump: float, confirm_units: int) -> None:
        self._flat_contrast = flat_contrast
        self._light_jump = light_jump
        self._light = LightWatch(light_jump, confirm_units)
        self._last: View | None = None
        self._age_units = 0
        self._covered = False

    def forget(self) -> None:
        """What comes next is not to be compared with what came before."""
        self._last = None

    def see(self, unit: Unit) -> Seen:
        """Look at a unit; a picture that cannot be read is reported and the one before it tried."""
        unreadable: list[str] = []
        stamps = tuple(picture.stamp_ns for picture in unit.pictures)
        self._age_units += 1
        for picture in reversed(unit.pictures):
            try:
                view = look(picture)
            except InputError as error:
                unreadable.append(str(error))
                continue
            return self._judge(view, tuple(unreadable), stamps)
        return Seen(unreadable=tuple(unreadable), stamps=stamps)

    def _judge(self, view: View, unreadable: tuple[str, ...], stamps: tuple[int, ...]) -> Seen:
        before = self._last if self._age_units <= MEMORY_UNITS else None
        self._last = view
        self._age_units = 0
        was_covered = self._covered
        self._covered = is_covered(view, was_covered, self._flat_contrast)
        return Seen(
            view=view,
            # A hand over the lens is no motion in the scene.
            motion=None
            if before is None or self._covered or was_covered
            else motion(before, view, self._light_jump),
            covered=self._covered,
            light=0 if self._covered else self._light.follow(view),
            unreadable=unreadable,
            stamps=stamps,
        )


class LightWatch:
    """Tells a light going on or off from slow change and from a flash.

    It compares with a slow mean of the brightness, which stands still while a jump is being
    confirmed over `confirm_units` units.
    """

    FOLLOW = 0.2  # part of the difference that the slow mean takes over in a unit

    def __init__(self, light_jump: float, confirm_units: int) -> None:
        self._jump = light_jump
        self._confirm = confirm_units
        self._mean: float | None = None
        self._sign = 0
        self._count = 0

    def follow(self, view: View) -> int:
        """+1 when the light has gone on, -1 when it has gone off, else 0."""
        if self._mean is None:
            self._mean = view.brightness
        difference = view.brightness - self._mean
        sign = 0 if abs(difference) < self._jump else (1 if difference > 0 else -1)
        self._count = self._count + 1 if sign == self._sign else 1
        self._sign = sign
        if sign == 0:
            self._mean += self.FOLLOW * difference
        elif self._count >= self._confirm:
            self._mean = view.brightness
            self._sign = 0
            return sign
        return 0

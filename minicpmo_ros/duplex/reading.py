"""The unit that is open: `<unit>`, its pictures, its sound, read into the context as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minicpmo_ros.duplex.pictures import Gaze, Shown
from minicpmo_ros.duplex.window import KeptUnit, Window
from minicpmo_ros.runtime.api import Part, Rows

SOUND_ROWS = 10


@dataclass(frozen=True)
class _Read:
    """A picture that was read. end: row behind it. hidden: states of its tokens."""

    key: int
    end: int
    hidden: Rows


class OpenUnit:
    """Reads a unit; pictures may come before it is known which of them are the unit's.

    Args:
        unit_id: of the token `<unit>`.
        spare: rows that the unit may need after it was read.
    """

    def __init__(self, window: Window, gaze: Gaze, unit_id: int, spare: int) -> None:
        self.context = window.context
        self._window = window
        self._gaze = gaze
        self._unit_id = unit_id
        self._spare = spare
        self.passes: list[list[Part]] = []
        """What was read of the unit that was read last, pass by pass."""
        self.begin()

    def begin(self) -> None:
        """The next unit begins where the context ends."""
        self._start = self.context.length
        self._read: list[_Read] = []
        self._gaze.forget()

    def put_back(self) -> None:
        """Take out of the context what was read of the unit that is open; `read` reads it again,
        where the context ends then."""
        self._read.clear()
        self.context.truncate(self._start)

    def resume(self) -> None:
        """The context was changed since `put_back`."""
        self._start = self.context.length

    def make_room(self, shown: Sequence[Shown]) -> None:
        """Let the window slide if the unit with these pictures would not fit; KvFullError."""
        pictures = sum(len(part) for one in shown for part in self._gaze.parts(one.key))
        whole = 1 + pictures + SOUND_ROWS + self._spare
        if not self._window.has_room(whole - (self.context.length - self._start)):
            # What was read early looked at units that go now: it is read again without them.
            self._read.clear()
            self.context.truncate(self._start)
            self._window.make_room(whole)
            self._start = self.context.length

    def read(self, shown: Sequence[Shown], sound: Sequence[Part] = ()) -> Rows:
        """Read the unit so far, but what of it was read already: hidden states of what came last.

        Pictures that were read and are not shown are forgotten. Each picture is a pass of its own,
        and so is the sound behind one: sums are rounded alike, whether or not it came early, and a
        conversation replayed gives the same bytes.
        """
        same = 0
        for read, one in zip(self._read, shown, strict=False):
            if read.key != one.key:
                break
            same += 1
        del self._read[same:]
        self.context.truncate(self._read[-1].end if self._read else self._start)
        opening: list[Part] = [] if self._read else [[self._unit_id]]
        for one in shown[same:]:
            hidden = self.context.read(*opening, *self._gaze.parts(one.key))
            self._read.append(_Read(one.key, self.context.length, hidden))
            opening = []
        opened: list[Part] = [[self._unit_id]]
        self.passes = [self._gaze.parts(one.key) for one in shown]
        if self.passes:
            self.passes[0] = [*opened, *self.passes[0]]
        if sound or opening:
            self.passes.append([*opening, *sound])
            return self.context.read(*opening, *sound)
        return self._read[-1].hidden

    def close(self, said: tuple[int, ...]) -> None:
        """All of the unit was read, with what was generated in it."""
        self._window.add(KeptUnit(self.context.length - self._start, said))
        self.begin()

    def undo(self) -> None:
        """Forget what was read of the unit."""
        self.context.truncate(self._start)
        self.begin()

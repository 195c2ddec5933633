"""Texts that somebody asked the robot to say: when they may be spoken, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minicpmo_ros.brains.turns import Turns


@dataclass(frozen=True)
class Spoken:
    """What became of a turn. complete: every word was heard; heard: the words that were."""

    ended: bool
    complete: bool
    heard: str


class Says:
    """Holds a text back while the robot's turn is open, and forgets all of them at a cut."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held: list[Callable[[], None]] = []
        self._pending: set[int] = set()

    @property
    def waiting(self) -> bool:
        return bool(self._held)

    def reserve(self) -> int:
        """The turn of a text that is to be spoken."""
        number = self._turns.reserve()
        self._pending.add(number)
        return number

    def ready(self, job: Callable[[], None]) -> bool:
        """True when the job may run now; else it is held until `release`."""
        if self._turns.open_turn is None:
            return True
        self._held.append(job)
        return False

    def release(self) -> list[Callable[[], None]]:
        """The robot's turn has ended: the jobs that waited for it."""
        held, self._held = self._held, []
        return held

    def drop(self) -> None:
        """None of them will be spoken."""
        self._held.clear()
        self._pending.clear()

    def settled(self, number: int) -> bool:
        """The text has become speech, or will not; false where it was settled before."""
        waited = number in self._pending
        self._pending.discard(number)
        return waited

    def spoken(self, number: int) -> Spoken:
        """As the speaker reports it."""
        turn = self._turns.get(number)
        if turn is None:  # not synthesised yet, or dropped before it was
            return Spoken(number not in self._pending, False, "")
        complete = turn.finished_ns is not None
        cut_off = turn.interrupted_ns is not None or turn.epoch != self._turns.epoch
        return Spoken(complete or cut_off, complete, turn.heard_report)

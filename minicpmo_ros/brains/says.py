"""Texts that somebody asked the robot to say: when they may be spoken, and what became of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from minicpmo_ros.brains.turns import Turns
from minicpmo_ros.messages import NS_PER_S

# A text goes to the speaker so long before what sounds now is over: late enough to be taken back
# until then, early enough to follow without a gap.
AHEAD_NS = 1 * NS_PER_S


@dataclass(frozen=True)
class Spoken:
    """What became of a turn. complete: every word was heard; heard: the words that were."""

    ended: bool
    complete: bool
    heard: str


class Says:
    """Holds texts back, in their order, until the robot has said what it says, and forgets all of
    them at a cut."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._held: deque[tuple[int, Callable[[], None]]] = deque()
        self._pending: set[int] = set()
        self._next: int | None = None

    @property
    def waiting(self) -> bool:
        """Texts have not become speech yet."""
        return bool(self._pending)

    def reserve(self) -> int:
        """The turn of a text that is to be spoken."""
        number = self._turns.reserve()
        self._pending.add(number)
        return number

    def hold(self, number: int, job: Callable[[], None], *, first: bool = False) -> None:
        """Keep the job that speaks a text until `release` gives it. first: it was given before, and
        the robot had begun a turn meanwhile."""
        if first:
            self._next = None
            self._held.appendleft((number, job))
        else:
            self._held.append((number, job))

    def release(self, now_ns: int) -> Callable[[], None] | None:
        """The next job, where it may run now."""
        while self._held and self._held[0][0] not in self._pending:
            self._held.popleft()  # taken back
        if not self._held or self._next in self._pending or not self.free(now_ns):
            return None
        self._next, job = self._held.popleft()
        return job

    def free(self, now_ns: int) -> bool:
        """The robot says nothing, or nothing more than for a moment."""
        return not (self._turns.open_turn or self._turns.sounding(now_ns + AHEAD_NS))

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
        finished = turn.finished_ns is not None
        cut_off = turn.interrupted_ns is not None or turn.epoch != self._turns.epoch
        return Spoken(finished or cut_off, finished and turn.whole, turn.heard_report)

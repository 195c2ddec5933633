"""What is asked of a brain, in order, on its worker: units, an early look at pictures, requests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

from minicpmo_ros.brains.api import (
    Brain,
    SessionSetup,
    Speech,
    Surroundings,
    UnitResult,
    VoiceNotes,
)
from minicpmo_ros.brains.work import Job, Worker
from minicpmo_ros.messages import Action, Picture
from minicpmo_ros.timeline.unit import Unit


@dataclass(frozen=True, eq=False)
class Decided:
    """What came of a unit. brain: who decided; trouble: see `Brain`; fault: why it failed, or
    empty; ms: wall time that it took.
    """

    result: UnitResult
    brain: str
    trouble: str = ""
    fault: str = ""
    ms: float = 0.0


Decide = Callable[[Decided], None]
More = Callable[[Speech | None], bool]
"""Takes the next piece of `UnitResult.rest`; None: there is no other. False: no more is wanted."""


@dataclass(frozen=True)
class Loading:
    """How far a brain has come. what: the part that loads now; percent: of the whole, 0 to 100."""

    brain: str
    what: str = ""
    percent: int = 0

    def __str__(self) -> str:
        if not self.what:
            return f"loading {self.brain}"
        return f"loading {self.brain}: {self.what} {self.percent} %"


@dataclass(eq=False)
class _Look:
    """An early look that waits for the worker; without a picture there is nothing to look at."""

    picture: Picture | None


class BrainQueue:
    """See the module's first line. `report(kind, text)` gets what the brain raises, and once what
    there is to say of the voice that it comes to speak in.

    May be called from any thread; the brain is called from the worker alone.
    """

    def __init__(self, brain: Brain, worker: Worker, report: Callable[[str, str], None]) -> None:
        self.loading: Loading | None = None
        """Set while the brain is being opened."""
        self.failures = 0
        self.unit_ms: deque[float] = deque(maxlen=600)
        self._brain = brain
        self._worker = worker
        self._report = report
        self._lock = threading.Lock()
        self._units = 0
        self._look: _Look | None = None
        self._told_voice = VoiceNotes()
        self._looks_early = type(brain).picture is not Brain.picture
        brain.progress = self._note_progress

    @property
    def units(self) -> int:
        """Units that wait for their decision, the one in work included."""
        return self._units

    @property
    def busy(self) -> bool:
        """Anything at all waits or is in work."""
        return self._worker.waiting > 0

    def open(
        self, setup: SessionSetup, meanwhile: Callable[[], None] = lambda: None, every_s: float = 1
    ) -> None:
        """Open the brain and wait for it; raises what it raises.

        meanwhile is called by the caller's thread every every_s seconds until it is open.
        """
        over = threading.Event()
        raised: list[BaseException] = []

        def opening() -> None:
            try:
                self._open(setup)
            except BaseException as error:  # whatever it is, the one who waits must know
                raised.append(error)
            finally:
                over.set()

        self._worker.submit(opening)
        while not over.wait(every_s):
            meanwhile()
        if raised:
            raise raised[0]

    def reopen(self, setup: SessionSetup) -> None:
        """A new session, after all that was asked before; what the brain raises is reported."""
        self.ask(lambda: self._open(setup))

    def unit(
        self, unit: Unit, around: Surroundings, decided: Decide, more: More = lambda piece: False
    ) -> None:
        """Ask for a decision. decided gets it on the worker, and more the rest of its speech, both
        before the brain settles."""
        with self._lock:
            self._units += 1
            look, self._look = self._look, None
            newest = look.picture if look is not None else None
            if look is not None:
                look.picture = None
        self._worker.submit(partial(self._decide, unit, around, decided, more))
        # What waited in front of the unit has come too late to be early: the unit brings its
        # pictures itself, and a newer one must not be seen before the unit is decided.
        if newest is not None and newest.stamp_ns >= unit.end_ns:
            self.picture(newest)

    def picture(self, picture: Picture) -> None:
        """Have the brain look at it before its unit closes; one waits at most, the newest."""
        if not self._looks_early:
            return
        with self._lock:
            if self._look is not None:
                self._look.picture = picture
                return
            look = self._look = _Look(picture)
        self._worker.submit(partial(self._take_look, look))

    def ask(self, job: Job) -> None:
        """Another request to the brain; what it raises is counted and reported."""
        self._worker.submit(partial(self._guard, job))

    def beside(self, job: Job) -> None:
        """Work that belongs between the brain's, but is not its own; must not raise."""
        self._worker.submit(job)

    def close(self, timeout_s: float) -> None:
        """Finish what was asked, then close the brain."""
        if not self._worker.close(timeout_s):
            self._report("brain", f"the brain did not finish within {timeout_s:.0f} s")
        self._brain.close()

    # -- on the worker ----------------------------------------------------------------------

    def _open(self, setup: SessionSetup) -> None:
        self.loading = Loading(self._brain.name)
        try:
            self._brain.open(setup)
        finally:
            self.loading = None
        self._tell_voice()

    def _tell_voice(self) -> None:
        """Each voice is a kind of its own: of those tried one after the other, all are told."""
        notes = self._brain.voice_notes
        if notes != self._told_voice and notes.notes:
            self._report(f"voice {notes.voice}", str(notes))
        self._told_voice = notes

    def _note_progress(self, what: str, share: float) -> None:
        # max first: it makes 0 of NaN
        self.loading = Loading(self._brain.name, what, round(100 * min(1.0, max(0.0, share))))

    def _decide(self, unit: Unit, around: Surroundings, decided: Decide, more: More) -> None:
        try:
            made = self._made(unit, around)
            decided(made)
            if made.result.rest is not None:
                began = time.perf_counter()
                rest = made.result.rest
                self._guard(lambda: _hand_on(rest, more))
                more(None)
                self.unit_ms[-1] += (time.perf_counter() - began) * 1000.0
            if not made.fault:
                self._guard(self._brain.settle)
        finally:
            with self._lock:
                self._units -= 1

    def _made(self, unit: Unit, around: Surroundings) -> Decided:
        brain, fault = self._brain, ""
        began = time.perf_counter()
        try:
            result = brain.unit(unit, around)
        except Exception as error:  # a brain must never take the other streams down
            fault = f"{type(error).__name__}: {error}"
            result = UnitResult(Action.LISTEN, reason=f"brain failed: {fault}")
        ms = (time.perf_counter() - began) * 1000.0
        self.loading = None  # a unit may have opened a brain, too
        self.unit_ms.append(ms)
        self._tell_voice()  # or opened it in a voice that it could not be opened in before
        if fault:
            self._failed(f"unit {unit.index}: {fault}")
        return Decided(result, brain.name, brain.trouble, fault, ms)

    def _take_look(self, look: _Look) -> None:
        with self._lock:
            picture, look.picture = look.picture, None
            if self._look is look:
                self._look = None
        if picture is not None:
            self._guard(lambda: self._brain.picture(picture))

    def _guard(self, job: Job) -> None:
        try:
            job()
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}")

    def _failed(self, text: str) -> None:
        self.failures += 1
        self._report("brain", text)


def _hand_on(rest: Generator[Speech, None, None], more: More) -> None:
    try:
        for piece in rest:
            if not more(piece):
                break
    finally:
        rest.close()

"""A brain that can fail with one behind it that cannot: the robot goes on in a simpler way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from minicpmo_ros.brains.api import (
    Brain,
    Capabilities,
    ChatRequest,
    SessionSetup,
    Surroundings,
    UnitResult,
)
from minicpmo_ros.errors import BrainError, ConfigError
from minicpmo_ros.messages import Picture
from minicpmo_ros.timeline.unit import Unit


class FallbackBrain(Brain):
    """The primary decides until so many units in a row have failed in it; then the reserve does.

    Everything is counted in units, so that a replay falls back and comes back at the same ones.
    `capabilities` are the primary's at all times; `name` is that of the one who decides; `trouble`
    says why while that is the reserve.
    """

    def __init__(
        self, primary: Brain, reserve: Brain, failures: int = 3, retry_units: int = 10
    ) -> None:
        """failures: units in a row. retry_units: so many units after it failed, the primary is
        opened anew and tried. Raises ConfigError for less than 1 of either.
        """
        for name, value in (("failures", failures), ("retry_units", retry_units)):
            if value < 1:
                raise ConfigError(f"{name}={value}: must be 1 or more")
        self._primary, self._reserve = primary, reserve
        self._limit, self._retry_units = failures, retry_units
        self._setup = SessionSetup()
        self._active: Brain = primary
        self._failed = 0
        self._before = 0
        """Units that had failed in a row before the one that has yet to settle."""
        self._reserve_units = 0
        self._why = ""
        self._was_open = False
        self._begin()

    def open(self, setup: SessionSetup) -> None:
        """Begin a session with the primary.

        The first one raises what the primary raises. In a later one that the primary cannot open,
        the reserve decides.
        """
        self._setup = setup
        try:
            self._open_primary()
        except Exception as error:
            if not self._was_open:
                raise
            self._note(error)
            self._fall_back(error)
        self._was_open = True

    def unit(self, unit: Unit, around: Surroundings) -> UnitResult:
        """Raises what the primary raises until it has failed too often."""
        if self._active is self._primary:
            return self._ask_primary(unit, around)
        if self._reserve_units < self._retry_units:
            return self._ask_reserve(unit, around)
        return self._retry(unit, around)

    def picture(self, picture: Picture) -> None:
        self._active.picture(picture)

    def settle(self) -> None:
        """Counts as a failure of the unit where it fails in the primary."""
        try:
            self._active.settle()
        except Exception as error:
            if self._active is self._primary:
                self._failed = self._before
                self._note(error)
                if self._failed >= self._limit:
                    self._fall_back(error)
            raise

    def interrupt(self, heard: str) -> None:
        self._active.interrupt(heard)

    def remember(self, heard: str, unit: int) -> None:
        self._active.remember(heard, unit)

    def voices(self) -> tuple[str, ...]:
        return self._primary.voices()

    def chat(self, request: ChatRequest) -> Iterator[str]:
        """The answer of whoever decides; raises BrainError where that is a reserve that cannot."""
        if self._active is self._reserve and not self._reserve.capabilities.chats:
            raise BrainError(
                f"{self.trouble}, which cannot chat; ask again when {self._primary.name} is back"
            )
        return self._active.chat(request)

    def close(self) -> None:
        self._was_open = False
        try:
            self._primary.close()
        finally:
            self._reserve.close()

    # -- who decides ------------------------------------------------------------------------

    def _ask_primary(self, unit: Unit, around: Surroundings) -> UnitResult:
        try:
            result = self._primary.unit(unit, around)
        except Exception as error:
            self._note(error)
            if self._failed < self._limit:
                raise
            self._fall_back(error)
            return self._ask_reserve(unit, around)
        self._before, self._failed = self._failed, 0
        return result

    def _ask_reserve(self, unit: Unit, around: Surroundings) -> UnitResult:
        self._reserve_units += 1
        result = self._reserve.unit(unit, around)
        return replace(result, reason=f"{self._why}; {self._reserve.name}: {result.reason}")

    def _retry(self, unit: Unit, around: Surroundings) -> UnitResult:
        """The primary's unit if it can; it must not cost the robot a unit if it cannot."""
        why, failed = self._why, self._failed
        self._reserve_units = 0
        self.name = self._primary.name  # it is this one that may be loading now
        try:
            self._open_primary()
            result = self._primary.unit(unit, around)
        except Exception as error:
            self._failed = failed
            self._note(error)
            self._decide_by_reserve()
            return self._ask_reserve(unit, around)
        return replace(result, reason=f"{self._primary.name} is back ({why}); {result.reason}")

    def _open_primary(self) -> None:
        self._primary.progress = self.progress
        self._primary.open(self._setup)
        self._begin()

    def _begin(self) -> None:
        """The primary decides, and has not failed."""
        self._active = self._primary
        self._failed = self._before = self._reserve_units = 0
        self._why, self.trouble = "", ""
        self.name, self.capabilities = self._primary.name, self._primary.capabilities
        self.about = self._primary.about
        self.voice, self.voice_trouble = self._primary.voice, self._primary.voice_trouble
        self.voice_notes = self._primary.voice_notes

    def _note(self, error: Exception) -> None:
        self._failed += 1
        times = "once" if self._failed == 1 else f"{self._failed} times"
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        self._why = f"{self._primary.name} failed {times} ({text})"

    def _fall_back(self, cause: Exception) -> None:
        """Open the reserve. Raises BrainError where that fails, too; the next unit tries again."""
        try:
            self._reserve.open(_within(self._reserve.capabilities, self._setup))
        except Exception as error:
            raise BrainError(
                f"{self._why}; {self._reserve.name} does not open ({type(error).__name__}: {error})"
            ) from cause
        self._reserve_units = 0
        self._decide_by_reserve()

    def _decide_by_reserve(self) -> None:
        self._active, self.name = self._reserve, self._reserve.name
        self.trouble = f"{self._why}: {self._reserve.name} decides instead"


def _within(can: Capabilities, setup: SessionSetup) -> SessionSetup:
    """The same session as far as a brain of less ability can have it."""
    return replace(
        setup,
        mode=setup.mode if setup.mode in can.modes else can.modes[0],
        language=setup.language if setup.language in can.languages else can.languages[0],
        prompt=setup.prompt if can.takes_prompt else "",
    )

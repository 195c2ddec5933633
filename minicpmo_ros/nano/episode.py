"""What happens in an episode, second by second: who says what, what is seen, what is right to do.

An episode is directed unit by unit, as the robot will live it: a unit's decision comes at its end,
what is said then sounds in the next second, and the user reacts to what was heard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from minicpmo_ros.nano.answers import (
    SEEING,
    Memory,
    Slots,
    View,
    Watch,
    answer,
    chunks,
)
from minicpmo_ros.nano.asking import Asking
from minicpmo_ros.nano.lines import Line, Lines
from minicpmo_ros.nano.stage_set import StageSet

# A user's turn is over when there was silence for so long; what ends later in a unit is answered
# with the next one.
HEARD_OUT_S = 0.3
# So much of an interruption must be heard to tell it from "mhm".
RECOGNISED_S = 0.7
# Of what is said while the robot is silent, the share that is said to it.
_TURNS = 0.76


@dataclass(frozen=True)
class Voiced:
    """Something the user, or somebody near, says.

    line: how it sounds. kind: turn, interruption, backchannel, tic, not_directed, foreign, noise.
    intent, slots: what is meant, of turns and interruptions. ends_s: of the last sound of it, with
    what follows after a pause within the sentence.
    """

    start_s: float
    line: Line
    kind: str
    intent: str = ""
    slots: Slots = field(default_factory=Slots)
    ends_s: float = 0.0


@dataclass(frozen=True)
class Target:
    """What is right in a unit. action: listen, speak, yield (end the turn, for the user speaks) or
    cut (the turn was ended from outside). text: said in it. ends: the turn is over with it."""

    action: str
    text: str = ""
    ends: bool = False


@dataclass(frozen=True)
class Answered:
    """What was said and why: the user's line, or what was watched for. text: whole. event_s: when
    the camera first showed it."""

    unit: int
    text: str
    voiced: Voiced | None = None
    watch: Watch | None = None
    event_s: float = 0.0


@dataclass(frozen=True)
class Episode:
    """previous: what the robot said before the episode, in units that are forgotten."""

    units: tuple[Target, ...]
    voiced: tuple[Voiced, ...]
    answered: tuple[Answered, ...]
    set: StageSet
    previous: str = ""


class Director:
    """Makes one episode; see `direct`.

    quiet: nobody speaks to the robot. fresh: nothing was said before it begins. waits: the user
    mostly asks to be told of something, and waits for it. looks: mostly asks about what is in view.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        lines: Lines,
        stage: StageSet,
        units: int,
        *,
        quiet: bool = False,
        fresh: bool = False,
        waits: bool = False,
        looks: bool = False,
    ) -> None:
        self._waits, self._looks = waits, looks
        self.rng, self.lines, self.set, self.units = rng, lines, stage, units
        self.asking = Asking(rng, stage, lines.held_out)
        self.memory = Memory()
        self._quiet = quiet
        before = not fresh and rng.random() < 0.3
        self.previous = self.asking.previous(self.memory) if before else ""
        self._targets: list[Target] = []
        self._voiced: list[Voiced] = []
        self._answered: list[Answered] = []
        self._waiting: list[str] = []  # chunks of the robot's turn that are still to come
        self._pending: tuple[int, Voiced] | None = None
        self._yield_unit: int | None = None
        self._cut_unit: int | None = None
        self._happened: list[tuple[Watch, float]] = []
        # Now and then nobody says anything for long.
        self._next_s = float(rng.exponential(0.7 if rng.random() < 0.94 else 8))

    def direct(self) -> Episode:
        for unit in range(self.units):
            self._act(unit)
            self._watch(unit)
            self._targets.append(self._decide(unit))
        return Episode(
            tuple(self._targets),
            tuple(self._voiced),
            tuple(self._answered),
            self.set,
            self.previous,
        )

    # -- the user -----------------------------------------------------------------------------

    def _act(self, unit: int) -> None:
        while unit <= self._next_s < unit + 1:
            start = self._next_s
            self._next_s = math.inf
            if self._waiting:
                self._interrupt(start)
            else:
                self._begin(start)

    def _begin(self, start: float) -> None:
        """While the robot is silent."""
        chance = self.rng.uniform(_TURNS, 1) if self._quiet else self.rng.random()
        if chance < _TURNS:
            self._turn(start, "turn")
            return
        if chance < 0.9:
            kind, line = "not_directed", self.lines.chatter()
        elif chance < 0.94:
            kind, line = "tic", self.lines.tic()
        elif chance < 0.97:
            kind, line = "backchannel", self.lines.backchannel()
        else:
            kind, line = "noise", self.lines.noise()
        said = self._say(start, line, kind)
        self._next_s = said.ends_s + 0.4 + self.rng.exponential(1.0)

    def _turn(self, start: float, kind: str) -> Voiced:
        if self.rng.random() < 0.04:
            intent, slots, line = "foreign", Slots(), self.lines.foreign()
        else:
            if self._waits and not self.memory.watches and self.rng.random() < 0.85:
                intent, slots = self.asking.to_watch(start)
            elif self._looks and self.rng.random() < 0.6:
                intent, slots = self.asking.to_see(start)
            else:
                intent, slots = self.asking.ask(self.memory, start)
            line = self.lines.ask(intent, slots)
        said = self._say(start, line, kind, intent, slots)
        due = math.ceil(said.ends_s + HEARD_OUT_S) - 1
        self._pending = (due, said)
        if intent == "stop":
            self._next_s = due + 1 + self.rng.exponential(1.5)
        return said

    def _interrupt(self, start: float) -> None:
        """While the robot speaks."""
        chance = self.rng.random()
        if chance < 0.45:
            if self.rng.random() < 0.5:
                line = self.lines.ask("stop", Slots())
                said = self._say(start, line, "interruption", "stop")
                self._next_s = said.ends_s + 1 + self.rng.exponential(1.5)
            else:
                said = self._turn(start, "interruption")
            first = min(start + RECOGNISED_S, said.ends_s)
            self._yield_unit = math.ceil(first + 0.05) - 1
            if self.rng.random() < 0.2:
                self._cut_unit = math.floor(start)
            return
        if chance < 0.72:
            kind, line = "backchannel", self.lines.backchannel()
        elif chance < 0.84:
            kind, line = "tic", self.lines.tic()
        elif chance < 0.94:
            kind, line = "not_directed", self.lines.chatter()
        else:
            kind, line = "noise", self.lines.noise()
        said = self._say(start, line, kind)
        self._next_s = said.ends_s + 0.5 + self.rng.exponential(2.0)

    def _say(
        self, start: float, line: Line, kind: str, intent: str = "", slots: Slots | None = None
    ) -> Voiced:
        said = Voiced(start, line, kind, intent, slots or Slots(), start + line.seconds)
        self._voiced.append(said)
        return said

    # -- the world ------------------------------------------------------------------------------

    def _watch(self, unit: int) -> None:
        now, before = self.set.view(unit), self.set.view(unit - 1)
        if unit == 0 or now.things is None or before.things is None or now.strange:
            return
        for watch in self.memory.see(unit, before.things, now.things):
            self._happened.append((watch, self.set.shown_s(unit)))

    # -- the robot ------------------------------------------------------------------------------

    def _decide(self, unit: int) -> Target:
        if self._waiting:
            if self._cut_unit is not None and self._cut_unit <= unit:
                return self._fall_silent("cut")
            if self._yield_unit is not None and self._yield_unit <= unit:
                return self._fall_silent("yield")
            return self._speak(unit)
        self._cut_unit = self._yield_unit = None
        if self._pending is not None and self._pending[0] <= unit:
            _, said = self._pending
            self._pending = None
            text = self._answer(said, unit)
            if text:
                self._answered.append(Answered(unit, text, said))
                self._waiting = chunks(text)
                return self._speak(unit)
        elif self._happened and self._pending is None and not self._user_speaks(unit):
            watch, when = self._happened.pop(0)
            self._answered.append(Answered(unit, watch.alert, None, watch, when))
            self._waiting = chunks(watch.alert)
            return self._speak(unit)
        return Target("listen")

    def _answer(self, said: Voiced, unit: int) -> str:
        view: View = self.set.view(unit)
        if said.intent in SEEING and view.things is not None and view.strange:
            self.memory.changed = ""
        return answer(said.intent, said.slots, view, self.memory)

    def _speak(self, unit: int) -> Target:
        text = self._waiting.pop(0)
        ends = not self._waiting
        if ends:
            self._cut_unit = self._yield_unit = None
        if math.isinf(self._next_s) and self._pending is None:
            if ends:
                # It sounds until about the end of the next unit.
                self._next_s = unit + 1.9 + self.rng.exponential(0.9)
                if self.memory.watches and self.rng.random() < (0.85 if self._waits else 0.6):
                    self._next_s += self.rng.uniform(2, 8)  # for what they watch for to happen
            elif self.rng.random() < 0.4:
                self._next_s = unit + 1.05 + self.rng.uniform(0, 1.2)
        return Target("speak", text, ends)

    def _fall_silent(self, action: str) -> Target:
        self._waiting.clear()
        self._cut_unit = self._yield_unit = None
        return Target(action, ends=True)

    def _user_speaks(self, unit: int) -> bool:
        return any(one.start_s < unit + 1 < one.ends_s + HEARD_OUT_S for one in self._voiced)

"""What a user comes to ask for, given what there is to see and what was said."""

from __future__ import annotations

import math

import numpy as np

from minicpmo_ros.media.world.things import COLOURS, KINDS, PLACES, Thing
from minicpmo_ros.nano.answers import Memory, Slots, Watch, answer
from minicpmo_ros.nano.stage_set import StageSet
from minicpmo_ros.nano.wordings import WORDS

_COMPANY = (
    *("hello", "how_are_you", "name", "ability", "story", "thanks", "goodbye", "hear_me"),
    *("count", "remember", "recall", "repeat", "unknown", "cancel", "stop", "count", "repeat"),
)
_SEEN = (
    *("see", "see", "see", "colour_of", "colour_of", "where", "where", "is_there", "is_there"),
    *("how_many", "how_many", "how_many_kind", "what_at", "what_at", "size_of", "changed"),
    *("watch_appears", "watch_appears", "watch_leaves", "watch_leaves", "watch_turns"),
    *("watch_turns", "watch_count", "how_many_kind"),
)
_IN_VIEW = [one for one in _SEEN if one != "changed" and not one.startswith("watch_")]
_LONG = ("ability", "story", "count")
_COUNTS = (3, 4, 5, 6, 8, 10)


class Asking:
    """held_out: nothing of it changes what is asked; wordings and voices do. soon_s: how long it
    takes to ask for something, before which it is not to happen. late: the share of units passed by
    in looking for what will happen. changed: the share of questions behind a change that ask for
    it."""

    def __init__(
        self,
        rng: np.random.Generator,
        stage: StageSet,
        held_out: bool,
        soon_s: int = 5,
        late: float = 0.25,
        changed: float = 0.12,
    ) -> None:
        self._soon_s, self._late, self._changed = soon_s, late, changed
        self.rng, self.set = rng, stage
        self.held_out = held_out

    def ask(self, memory: Memory, start_s: float) -> tuple[str, Slots]:
        """An intent and its slots for a turn that begins then."""
        camera = self.set.scene is not None
        things = self._things(start_s)
        if camera and memory.kind and self.rng.random() < 0.25:
            intent = str(self.rng.choice(("and_the", "its_colour", "its_place", "another")))
            if intent == "and_the" and memory.topic:
                return intent, Slots(kind=self._kind(things))
            if intent != "and_the" and self._count(things, memory.kind) < 2:
                return intent, Slots()
        if memory.word and self.rng.random() < 0.15:
            return "recall", Slots()
        if memory.watches and self.rng.random() < 0.15:
            return "cancel", Slots()
        if memory.changed and self.rng.random() < self._changed:
            return "changed", Slots()
        seen = self.rng.random() < (0.78 if camera else 0.35)
        intent = str(self.rng.choice(_SEEN if seen else _COMPANY))
        if not seen and self.rng.random() < 0.25:
            intent = str(self.rng.choice(_LONG))
        return intent, self._slots(intent, things, start_s)

    def to_watch(self, start_s: float) -> tuple[str, Slots]:
        """What to watch for, and its slots, for a turn that begins then."""
        intent = str(self.rng.choice([one for one in _SEEN if one.startswith("watch_")]))
        return intent, self._watch(intent, self._things(start_s), start_s)

    def to_see(self, start_s: float) -> tuple[str, Slots]:
        """A question about what is in view then, and its slots, for a turn that begins then."""
        intent = str(self.rng.choice(_IN_VIEW))
        return intent, self._slots(intent, self._things(start_s), start_s)

    def previous(self, memory: Memory) -> str:
        """What the robot said in units that are forgotten, with what it promised and remembered."""
        said = []
        for _ in range(int(self.rng.integers(1, 5))):
            intent = str(self.rng.choice((*_COMPANY, "watch_appears", "watch_leaves", "remember")))
            slots = self._slots(intent, (), 0.0)
            if intent == "story":
                continue
            said.append(answer(intent, slots, self.set.view(0), memory))
        if self.set.scene is None:
            memory.watches.clear()
        return "".join(said)

    # -- what fits -------------------------------------------------------------------------------

    def _things(self, start_s: float) -> tuple[Thing, ...]:
        return self.set.view(math.floor(start_s)).things or ()

    def _count(self, things: tuple[Thing, ...], kind: str) -> int:
        return sum(one.kind == kind for one in things)

    def _kind(self, things: tuple[Thing, ...]) -> str:
        """One that there is one of, mostly; or one that there is none of."""
        single = [one.kind for one in things if self._count(things, one.kind) == 1]
        if single and self.rng.random() < 0.8:
            return str(self.rng.choice(single))
        absent = [kind for kind in KINDS if not self._count(things, kind)]
        return str(self.rng.choice(absent))

    def _thing(self, things: tuple[Thing, ...], present: float = 0.7) -> Slots:
        kind = self._kind(things)
        if self.rng.random() < present and things:
            chosen = things[int(self.rng.integers(len(things)))]
            if self._count(things, chosen.kind) > 1 or self.rng.random() < 0.5:
                return Slots(kind=chosen.kind, colour=chosen.colour)
            return Slots(kind=chosen.kind)
        if self.rng.random() < 0.5:
            return Slots(kind=str(self.rng.choice(KINDS)), colour=str(self.rng.choice(COLOURS)))
        return Slots(kind=kind)

    def _slots(self, intent: str, things: tuple[Thing, ...], start_s: float) -> Slots:
        if intent.startswith("watch_"):
            return self._watch(intent, things, start_s)
        if intent in ("where", "is_there"):
            return self._thing(things, 0.75 if intent == "where" else 0.5)
        if intent in ("colour_of", "size_of"):
            return Slots(kind=self._kind(things))
        if intent == "how_many_kind":
            if things and self.rng.random() < 0.6:
                return Slots(kind=things[int(self.rng.integers(len(things)))].kind)
            return Slots(kind=str(self.rng.choice(KINDS)))
        if intent == "what_at":
            free = [one for one in PLACES if sum(thing.place == one for thing in things) < 2]
            return Slots(place=str(self.rng.choice(free or PLACES)))
        if intent == "count":
            return Slots(number=int(self.rng.choice(_COUNTS)))
        if intent in ("remember", "repeat"):
            return Slots(word=str(self.rng.choice(WORDS)))
        return Slots()

    def _watch(self, intent: str, things: tuple[Thing, ...], start_s: float) -> Slots:
        """Mostly for something that will happen, when there was time to ask for it."""
        first = math.ceil(start_s) + self._soon_s
        for unit in range(first, first + 14):
            before, now = self.set.view(unit - 1).things, self.set.view(unit).things
            if before is None or now is None or self.rng.random() < self._late:
                continue
            for slots in self._candidates(intent, before, now):
                watch = Watch(intent, slots)
                soon = range(math.floor(start_s), unit)
                early = any(
                    watch.happens(self.set.view(n - 1).things or (), self.set.view(n).things or ())
                    for n in soon
                )
                if watch.happens(before, now) and not early:
                    return slots
        if intent == "watch_count":
            return Slots(number=int(self.rng.integers(2, 5)))
        if intent == "watch_turns":
            return Slots(kind=self._kind(things), colour=str(self.rng.choice(COLOURS)))
        if intent == "watch_leaves" and things:
            return self._thing(things, 1.0)
        colour = str(self.rng.choice(COLOURS)) if self.rng.random() < 0.7 else ""
        return Slots(kind=str(self.rng.choice(KINDS)), colour=colour)

    def _candidates(
        self, intent: str, before: tuple[Thing, ...], now: tuple[Thing, ...]
    ) -> list[Slots]:
        if intent == "watch_count":
            return [Slots(number=len(now))] if len(now) > 1 else []
        some = before if intent == "watch_leaves" else now
        if intent == "watch_turns":
            return [Slots(kind=one.kind, colour=one.colour) for one in some]
        full = [Slots(kind=one.kind, colour=one.colour) for one in some]
        bare = [Slots(kind=one.kind) for one in some]
        return [*bare, *full] if self.rng.random() < 0.5 else [*full, *bare]

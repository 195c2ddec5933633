"""What the camera shows in an episode: a scene that changes, a strange picture, or no picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from minicpmo_ros.media.world.looks import Look
from minicpmo_ros.media.world.things import COLOURS, Life, Scene, Thing, is_held_out, random_things
from minicpmo_ros.nano.answers import View

MOST_THINGS = 4
STRANGE_SHARE = 0.06


@dataclass(frozen=True)
class StageSet:
    """scene: None without a camera. phase_s: when within each unit its picture is taken. strange:
    the pictures are of another world; held_out: of kinds that training never shows."""

    scene: Scene | None
    look: Look | None = None
    phase_s: float = 0.9
    strange: bool = False
    held_out: bool = False
    _views: dict[int, View] = field(default_factory=dict, repr=False, compare=False)

    def shown_s(self, unit: int) -> float:
        return unit + self.phase_s

    def view(self, unit: int) -> View:
        if self.scene is None:
            return View(None)
        if unit not in self._views:
            things = () if self.strange else self.scene.at(self.shown_s(unit))
            self._views[unit] = View(things, self.strange)
        return self._views[unit]


def no_camera() -> StageSet:
    return StageSet(None)


def still_set(things: tuple[Thing, ...]) -> StageSet:
    """In which nothing happens; it has no look."""
    return StageSet(Scene(tuple(Life(one) for one in things)))


def leaping_set(pictures: Sequence[tuple[Thing, ...]]) -> StageSet:
    """Each unit shows another of these, and nothing is seen after them; it has no look."""
    return StageSet(Scene(()), _views={unit: View(one) for unit, one in enumerate(pictures)})


def hastened(stage: StageSet, times: float) -> StageSet:
    """The same with everything happening so much faster; motion is as it was."""
    assert stage.scene is not None
    lives = tuple(
        replace(
            life,
            enters_s=life.enters_s / times,
            leaves_s=life.leaves_s / times,
            turns=tuple((when / times, colour) for when, colour in life.turns),
        )
        for life in stage.scene.lives
    )
    return StageSet(Scene(lives), stage.look, stage.phase_s, stage.strange, stage.held_out)


def random_set(
    rng: np.random.Generator, units: int, *, held_out: bool = False, strange: bool = False
) -> StageSet:
    """A set with 0 to 4 things at a time, of which some come, go, move, or change colour; now and
    then, or if so wanted, one of another world."""
    look = Look.random(rng, held_out)
    phase = float(rng.uniform(0.5, 0.97))
    if strange or rng.random() < STRANGE_SHARE:
        return StageSet(Scene(()), look, phase, True, held_out)
    count = int(rng.choice(5, p=(0.08, 0.3, 0.3, 0.2, 0.12)))
    found = random_things(rng, MOST_THINGS, held_out=held_out)
    order = (
        [0, *(1 + rng.permutation(MOST_THINGS - 1))] if held_out else rng.permutation(len(found))
    )
    things = [found[int(place)] for place in order]
    lives = [_life(rng, one, -math.inf) for one in things[:count]]
    waiting = list(things[count:])
    when = float(rng.uniform(1, 8))
    while when < units and rng.random() < 0.9:
        _change(rng, lives, waiting, when, held_out)
        when += float(rng.uniform(2.2, 8))
    return StageSet(Scene(tuple(lives)), look, phase)


def long_set(
    rng: np.random.Generator, units: int, *, held_out: bool = False, scene_s: int = 40
) -> StageSet:
    """One scene after the other, each of scene_s seconds, before the same background."""
    sets = [random_set(rng, scene_s, held_out=held_out) for _ in range(0, units, scene_s)]
    lives = []
    for number, one in enumerate(sets):
        assert one.scene is not None
        start, stop = number * scene_s, (number + 1) * scene_s
        for life in one.scene.lives:
            lives.append(
                replace(
                    life,
                    enters_s=max(life.enters_s + start, start),
                    leaves_s=min(life.leaves_s + start, stop),
                    turns=tuple((when + start, colour) for when, colour in life.turns),
                )
            )
    return StageSet(Scene(tuple(lives)), sets[0].look, sets[0].phase_s)


def _life(rng: np.random.Generator, thing: Thing, enters_s: float) -> Life:
    velocity = (0.0, 0.0)
    if rng.random() < 0.1:
        velocity = (0.0, float(rng.uniform(-0.02, 0.02)))
    return Life(thing, enters_s=enters_s, velocity=velocity)


def _change(
    rng: np.random.Generator, lives: list[Life], waiting: list[Thing], when: float, held_out: bool
) -> None:
    """One thing comes, goes or turns, in place."""
    there = [n for n, one in enumerate(lives) if one.enters_s < when and math.isinf(one.leaves_s)]
    chance = rng.random()
    if waiting and (chance < 0.45 or not there):
        lives.append(_life(rng, waiting.pop(0), when))
    elif there and chance < 0.75:
        chosen = int(rng.choice(there))
        lives[chosen] = replace(lives[chosen], leaves_s=when)
    elif there:
        chosen = int(rng.choice(there))
        life = lives[chosen]
        if not life.turns:
            kind, place = life.thing.kind, life.thing.place
            others = [
                one
                for one in COLOURS
                if one != life.thing.colour and (held_out or not is_held_out(kind, one, place))
            ]
            lives[chosen] = replace(life, turns=((when, str(rng.choice(others))),))

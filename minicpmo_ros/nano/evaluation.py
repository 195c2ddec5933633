"""What the nano checkpoint does with what it never heard or saw: the figures of its card."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.bench.figures import Figure
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.episode import Episode
from minicpmo_ros.nano.lessons import Lesson, Studio
from minicpmo_ros.nano.lines import Split
from minicpmo_ros.nano.living import Done, live
from minicpmo_ros.nano.measured import Measured, share
from minicpmo_ros.replay.scores import pool
from minicpmo_ros.runtime.api import Network

SIZE = (160, 120)
UNITS = 20
QUIET, STRANGE = "quiet", "strange"
SPLITS = {
    "known": Split(),
    "espeak": Split("espeak"),
    "wordings": Split(wordings=True),
    "flite": Split("flite"),
    "other_synth": Split("other"),
    "looks": Split(looks=True),
}
# In quiet ones nobody speaks to the robot; in strange ones there is nothing that it knows.
KINDS = (*SPLITS, QUIET, STRANGE)
_QUIET_SPLIT = Split("espeak", noises=True)
_GOALS = {"espeak": 0.97, "wordings": 0.85, "flite": 0.85, "other_synth": 0.60}
_PANEL = {
    "R_R": (0.98, True),
    "I_A": (0.05, False),
    "R_Y": (0.98, True),
    "S_BC": (0.9, True),
    "S_VT": (0.9, True),
    "S_ND": (0.9, True),
    "alert_recall_2s": (0.95, True),
    "false_alerts_per_10min": (1.0, False),
}
_OF_ANSWERS = ("R_R", "I_A")
Progress = Callable[[float], None]


class Evaluation:
    """Episodes that training never had, through the network as it runs on a robot."""

    def __init__(self, network: Network, tokenizer: Tokenizer, config: ModelConfig) -> None:
        self._network, self._tokenizer = network, tokenizer
        self._studio = Studio(config, tokenizer)

    def measure_kind(
        self, kind: str, episodes: int, seed: int = 0, progress: Progress = lambda share: None
    ) -> Measured:
        """See `measure`; kind: of KINDS."""
        split = SPLITS["looks"] if kind == STRANGE else SPLITS.get(kind, _QUIET_SPLIT)
        return self.measure(
            split,
            episodes,
            seed=seed,
            quiet=kind == QUIET,
            strange=kind == STRANGE,
            progress=progress,
        )

    def measure(
        self,
        split: Split,
        episodes: int,
        *,
        seed: int = 0,
        units: int = UNITS,
        quiet: bool = False,
        strange: bool = False,
        progress: Progress = lambda share: None,
    ) -> Measured:
        """Live so many episodes, half of them with a camera. quiet: nobody speaks to the robot.
        strange: all of them have a camera, before which there is nothing that it knows."""
        found = Measured()
        for number in range(episodes):
            rng = np.random.default_rng([1_000_003, seed, number])
            episode = self._studio.episode(
                rng,
                Lesson(units, strange or bool(number % 2)),
                split,
                quiet=quiet,
                fresh=True,
                strange=strange,
            )
            found.add(episode, self._live(episode, rng, split))
            progress((number + 1) / episodes)
        return found

    def long(self, seconds: int, seed: int, progress: Progress) -> list[Measured]:
        """One session with a camera that goes on for so long, by the minute."""
        split = SPLITS["espeak"]
        rng = np.random.default_rng([1_000_033, seed])
        episode = self._studio.long_episode(rng, seconds, split)
        done = self._live(episode, rng, split, progress)
        parts = []
        for first in range(0, seconds, 60):
            part = Measured()
            part.add(episode, done, range(first, min(first + 60, seconds)))
            parts.append(part)
        return parts

    def _live(
        self,
        episode: Episode,
        rng: np.random.Generator,
        split: Split,
        progress: Progress = lambda share: None,
    ) -> list[Done]:
        sound = self._studio.sound(episode, rng, split)

        def picture(unit: int) -> NDArray[np.uint8] | None:
            return self._studio.picture(episode, unit, rng, SIZE)

        return live(self._network, self._tokenizer, sound, picture, progress=progress)


def figures(measured: dict[str, Measured]) -> Iterator[Figure]:
    """Those of docs/nano.md, of the kinds that were measured."""
    for kind, name, goal in (("espeak", "", 0.99), ("flite", "_flite", 0.98)):
        if kind in measured:
            accuracy = share(measured[kind].units)
            yield Figure.at_least(f"nano.listen_speak_accuracy{name}", accuracy, goal)
    for kind, one in measured.items():
        if kind == QUIET:
            spoken = 1 - share(one.units)
            yield Figure.at_most("nano.false_speech", spoken, 0.0)
        elif kind in _GOALS:
            yield Figure.at_least(f"nano.answers_{kind}", share(one.all_answers), _GOALS[kind])
        else:
            yield Figure(f"nano.answers_{kind}", share(one.all_answers))
        if kind != QUIET:
            yield Figure(f"nano.answers_{kind}.seen", share(one.seen))
            yield Figure(f"nano.answers_{kind}.count", len(one.all_answers))
    if "espeak" in measured:
        yield from _behaviour(measured["espeak"])


def _behaviour(known: Measured) -> Iterator[Figure]:
    behaved, asked = pool(known.sessions), pool(known.asked)
    for name, (goal, least) in _PANEL.items():
        panel = asked if name in _OF_ANSWERS else behaved
        value = panel[name].value
        if value is not None:
            make = Figure.at_least if least else Figure.at_most
            yield make(f"nano.{name}", value, goal)
        yield Figure(f"nano.{name}.count", panel[name].count)
    yield Figure.at_most("nano.rtf_one_thread", float(np.median(known.ms)) / 1000, 0.15)

"""What was found in episodes of one kind."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minicpmo_ros.nano.answers import SEEING
from minicpmo_ros.nano.episode import Episode
from minicpmo_ros.nano.living import Done, cut_in, right, session, turns
from minicpmo_ros.replay.scores.session import Session


@dataclass
class Measured:
    """answers: whether each was right, but for those about what a camera shows, which are seen.
    units: whether each listened or spoke as it should. asked: sessions without what waits for no
    answer. said: text of each unit. wrong: in words, what was asked, what was right, what was said.
    """

    answers: list[bool] = field(default_factory=list)
    seen: list[bool] = field(default_factory=list)
    units: list[bool] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    asked: list[Session] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def all_answers(self) -> list[bool]:
        return [*self.answers, *self.seen]

    def add(self, episode: Episode, done: list[Done], units: range | None = None) -> None:
        """Judge an episode; only what began in `units` of it, if given."""
        within = units or range(len(done))
        said = turns(done)
        for unit in within:
            self.units.append(done[unit].speaks == (episode.units[unit].action == "speak"))
            self.ms.append(done[unit].ms)
            self.said.append(done[unit].text)
        for answered in episode.answered:
            if answered.watch is not None or answered.unit not in within:
                continue
            verdict = right(answered, said, cut_in(answered, episode.voiced, len(done)))
            if verdict is None:
                continue
            asked = answered.voiced.intent if answered.voiced is not None else ""
            seen = episode.set.scene is not None and asked in SEEING
            (self.seen if seen else self.answers).append(verdict)
            if not verdict and answered.voiced is not None:
                heard = [one.text for one in said if abs(one.unit - answered.unit) < 2]
                self.wrong.append(f"{answered.voiced.line.text!r}: {answered.text!r}, not {heard}")
        self.sessions.append(session(episode, done))
        self.asked.append(session(episode, done, stops=False))


def agreement(one: Measured, other: Measured) -> float:
    """Share of units in which both listened, or both spoke."""
    return share([bool(a) == bool(b) for a, b in zip(one.said, other.said, strict=True)])


def share(some: list[bool]) -> float:
    """Of those that are true; NaN of none."""
    return float(np.mean(some)) if some else float("nan")

"""What a unit of a conversation came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from minicpmo_ros.duplex.mouth import Saying, Utterance
from minicpmo_ros.runtime.api import Rows


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a unit came to.

    saying: what is said in it; empty where it listens. ids, sampled, fed: tokens that the text
    was made of, all that were drawn, and those that the model reads before `</unit>`. end_of_turn:
    the robot has said what it wanted to say. p_listen, p_speak: probabilities of the two control
    tokens, before any rule. ms: wall time of each stage; that of speech grows as it is made.
    """

    listens: bool
    saying: Saying
    ids: tuple[int, ...]
    sampled: tuple[int, ...]
    fed: tuple[int, ...]
    end_of_turn: bool
    p_listen: float
    p_speak: float
    ms: Mapping[str, float]

    @property
    def utterance(self) -> Utterance:
        """All that is said, once all of it was made."""
        return self.saying.finish()


@dataclass
class Drawn:
    """What the loop of one unit has drawn and read; the last of `fed` is yet to be read."""

    ids: list[int] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    """Of `ids` in `fed`."""
    hidden: list[Rows] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    fed: list[int] = field(default_factory=list)
    end_of_turn: bool = False

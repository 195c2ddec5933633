"""What is scored: speech, events and alerts of one session, in seconds from its start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from minicpmo_ros.errors import InputError

Kind = Literal["turn", "interruption", "backchannel", "tic", "not_directed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SPOKEN_TO_ROBOT: tuple[Kind, ...] = ("turn", "interruption")


@dataclass(frozen=True)
class UserSegment:
    """A stretch of a person's speech [start_s, stop_s).

    kind: "turn" (said to the robot), "interruption" (a turn that is meant to cut in; both are
    scored alike, by what the robot does at the moment they begin), "backchannel" ("mhm"), "tic"
    ("um", a cough) or "not_directed" (said to somebody else, a television). Raises `InputError`
    for another kind, and for a stretch without length.
    """

    start_s: float
    stop_s: float
    kind: Kind = "turn"

    def __post_init__(self) -> None:
        _check_stretch("user segment", self.start_s, self.stop_s)
        if self.kind not in KINDS:
            raise InputError(f"user segment of kind {self.kind!r}: must be {', '.join(KINDS)}")


@dataclass(frozen=True)
class AgentSegment:
    """A stretch [start_s, stop_s) in which the robot's speech sounded.

    finished: it is known that the speech was said to its end, so its stop is no yielding; False
    where it was cut off, or where that is not known. Raises `InputError` for a stretch without
    length.
    """

    start_s: float
    stop_s: float
    text: str = ""
    finished: bool = False

    def __post_init__(self) -> None:
        _check_stretch("agent segment", self.start_s, self.stop_s)


@dataclass(frozen=True)
class Event:
    """Something happened that the robot was asked to report. Raises `InputError` for no time."""

    t_s: float
    name: str

    def __post_init__(self) -> None:
        _check_time(f"event {self.name!r}", self.t_s)


@dataclass(frozen=True)
class Alert:
    """The robot reports something; its name is that of the event. Raises `InputError` likewise."""

    t_s: float
    name: str

    def __post_init__(self) -> None:
        _check_time(f"alert {self.name!r}", self.t_s)


@dataclass(frozen=True)
class Session:
    """One session of duration_s seconds; segments may come in any order and may overlap.

    events: None where nobody wrote down what happened, so that alerts cannot be judged. What lies
    outside [0, duration_s) is cut off where ticks are counted. Raises `InputError` for a duration
    that is not above 0.
    """

    duration_s: float
    user: tuple[UserSegment, ...] = ()
    agent: tuple[AgentSegment, ...] = ()
    events: tuple[Event, ...] | None = ()
    alerts: tuple[Alert, ...] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_s) and self.duration_s > 0):
            raise InputError(f"session of {self.duration_s} s: its duration must be above 0")


def _check_stretch(what: str, start_s: float, stop_s: float) -> None:
    if not (math.isfinite(start_s) and math.isfinite(stop_s) and start_s < stop_s):
        raise InputError(f"{what} from {start_s} to {stop_s} s: it must stop after it starts")


def _check_time(what: str, t_s: float) -> None:
    if not math.isfinite(t_s):
        raise InputError(f"{what} at {t_s} s: its time must be a number")

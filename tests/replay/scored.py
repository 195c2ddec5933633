"""Sessions written down in a few numbers, for tests of the scores."""

from __future__ import annotations

from collections.abc import Sequence

from minicpmo_ros.replay.scores import AgentSegment, Alert, Event, Kind, Session, UserSegment

Said = tuple[float, float] | tuple[float, float, Kind]


def session(
    duration_s: float,
    user: Sequence[Said] = (),
    agent: Sequence[tuple[float, float]] = (),
    events: Sequence[tuple[float, str]] = (),
    alerts: Sequence[tuple[float, str]] = (),
) -> Session:
    """user: (start, stop) of a turn or (start, stop, kind)."""
    return Session(
        duration_s,
        tuple(UserSegment(*said) for said in user),
        tuple(AgentSegment(*said) for said in agent),
        tuple(Event(*event) for event in events),
        tuple(Alert(*alert) for alert in alerts),
    )

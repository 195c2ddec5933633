"""Events that the robot was asked to report, held against the alerts it gave.

An alert at t_a may belong to an event at t_e of the same name iff -0.5 s <= t_a - t_e <= W. Alerts
take their turn in order of time, and each gets the earliest such event that has none yet: one to
one, and as many pairs as there can be. An alert that finds only events taken by others is a
duplicate; one that finds none at all is a false alarm.
"""

from __future__ import annotations

from dataclasses import dataclass

from minicpmo_ros.replay.scores.session import Session

EARLY_S = 0.5
_SLACK_S = 1e-9


@dataclass(frozen=True)
class Reported:
    """Events and alerts of one or more sessions at one W; `+` joins.

    delays_s: t_a - t_e of each pair. watched_s: length of the sessions whose events are known.
    """

    delays_s: tuple[float, ...] = ()
    events: int = 0
    alerts: int = 0
    duplicates: int = 0
    watched_s: float = 0.0

    @property
    def false_alarms(self) -> int:
        return self.alerts - len(self.delays_s) - self.duplicates

    def __add__(self, other: Reported) -> Reported:
        return Reported(
            self.delays_s + other.delays_s,
            self.events + other.events,
            self.alerts + other.alerts,
            self.duplicates + other.duplicates,
            self.watched_s + other.watched_s,
        )


def reported(session: Session, within_s: float) -> Reported:
    """Match alerts to events with W = within_s; nothing where the events are not known."""
    if session.events is None:
        return Reported()
    events = sorted(session.events, key=lambda event: event.t_s)
    taken: set[int] = set()
    delays: list[float] = []
    duplicates = 0
    for alert in sorted(session.alerts, key=lambda alert: alert.t_s):
        near = [
            i
            for i, event in enumerate(events)
            if event.name == alert.name
            and -EARLY_S - _SLACK_S <= alert.t_s - event.t_s <= within_s + _SLACK_S
        ]
        free = [i for i in near if i not in taken]
        if free:
            taken.add(free[0])
            delays.append(alert.t_s - events[free[0]].t_s)
        elif near:
            duplicates += 1
    return Reported(tuple(delays), len(events), len(session.alerts), duplicates, session.duration_s)

"""Scores of full-duplex behaviour: who spoke when, and whether that was right.

A `Session` holds the stretches of speech of the person and of the robot, the events that the robot
was asked to report and the alerts it gave. `pool` makes the figures of many sessions.
"""

from minicpmo_ros.replay.scores.panel import Panel, Score, pool
from minicpmo_ros.replay.scores.session import (
    AgentSegment,
    Alert,
    Event,
    Kind,
    Session,
    UserSegment,
)

__all__ = [
    "AgentSegment",
    "Alert",
    "Event",
    "Kind",
    "Panel",
    "Score",
    "Session",
    "UserSegment",
    "pool",
]

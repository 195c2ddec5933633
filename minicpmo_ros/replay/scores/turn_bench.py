"""The events of a session in the shape of TurnBench's predictions.

speaker_1 is the person, speaker_2 the robot. Times are when the robot committed itself, not when
the cause lay: an end of the person's turn is where the robot's answer begins, an interruption by
the person is where the robot falls silent, one by the robot is where it begins over the person.
"""

from __future__ import annotations

from typing import TypedDict

from minicpmo_ros.replay.scores.session import Session
from minicpmo_ros.replay.scores.turn_taking import turn_taking


class Speaker(TypedDict):
    """Seconds, in order."""

    eot: list[float]
    interruption: list[float]


class Conversation(TypedDict):
    """One conversation's events."""

    conversation_id: str
    speaker_1: Speaker
    speaker_2: Speaker


def conversation_of(session: Session, conversation_id: str) -> Conversation:
    """Seconds are rounded to a millisecond."""
    turns = turn_taking(session)
    return {
        "conversation_id": conversation_id,
        "speaker_1": {
            "eot": _ordered([answer.start_s for _, answer in turns.answered]),
            "interruption": _ordered([speech.stop_s for _, speech in turns.yielded]),
        },
        "speaker_2": {
            "eot": _ordered([segment.stop_s for segment in session.agent]),
            "interruption": _ordered([speech.start_s for speech in turns.cut_in]),
        },
    }


def _ordered(times_s: list[float]) -> list[float]:
    return sorted(round(t_s, 3) for t_s in times_s)

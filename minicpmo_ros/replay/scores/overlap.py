"""Stop and response latency as Full-Duplex-Bench v1.5 defines them: from two tracks, without ticks.

A person's segments at most 0.6 s apart are one, the robot's at most 0.5 s apart likewise.

- Stop latency: the length of each stretch in which both speak. (Of those that end together only the
  shortest should count; with gaps closed no two do.)
- Response latency: from the end of a person's segment to the robot's next beginning. Of several
  that lead to the same beginning only the shortest counts.

The benchmark has one situation a recording. Here a session may hold several, so only what is said
to the robot counts, unless other kinds are asked for: a "mhm" that the robot rightly talks through
would else be a stop that took as long as the "mhm".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from minicpmo_ros.replay.scores.session import SPOKEN_TO_ROBOT, Kind, Session

USER_GAP_S = 0.6
AGENT_GAP_S = 0.5
_SLACK_S = 1e-9

Stretch = tuple[float, float]


def joined(stretches: Iterable[Stretch], gap_s: float) -> list[Stretch]:
    """Stretches in order of time, those at most gap_s apart as one."""
    made: list[Stretch] = []
    for start, stop in sorted(stretches):
        if made and start - made[-1][1] <= gap_s + _SLACK_S:
            made[-1] = (made[-1][0], max(made[-1][1], stop))
        else:
            made.append((start, stop))
    return made


def stop_latencies_s(
    session: Session, kinds: Collection[Kind] = SPOKEN_TO_ROBOT
) -> tuple[float, ...]:
    """Seconds, in order of time."""
    user, agent = _tracks(session, kinds)
    overlaps = (
        min(user_stop, agent_stop) - max(user_start, agent_start)
        for user_start, user_stop in user
        for agent_start, agent_stop in agent
    )
    return tuple(length_s for length_s in overlaps if length_s > 0.0)


def response_latencies_s(
    session: Session, kinds: Collection[Kind] = SPOKEN_TO_ROBOT
) -> tuple[float, ...]:
    """Seconds, in order of the answers."""
    user, agent = _tracks(session, kinds)
    shortest: dict[float, float] = {}
    for _, user_stop in user:
        start = next((start for start, _ in agent if start >= user_stop), None)
        if start is not None:
            shortest[start] = min(start - user_stop, shortest.get(start, start - user_stop))
    return tuple(shortest[start] for start in sorted(shortest))


def _tracks(session: Session, kinds: Collection[Kind]) -> tuple[list[Stretch], list[Stretch]]:
    user = [(s.start_s, s.stop_s) for s in session.user if s.kind in kinds]
    agent = [(s.start_s, s.stop_s) for s in session.agent]
    return joined(user, USER_GAP_S), joined(agent, AGENT_GAP_S)

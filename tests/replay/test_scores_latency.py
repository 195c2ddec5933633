"""Stop and response latency from two tracks, and alerts held against events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.replay.scores.overlap import joined, response_latencies_s, stop_latencies_s
from minicpmo_ros.replay.scores.proactive import EARLY_S, reported
from tests.replay.scored import session


def close(*values: float):
    return pytest.approx(values, abs=1e-6)


def test_gaps_of_the_very_limit_are_closed():
    assert joined([(3.0, 4.0), (1.0, 2.4)], 0.6) == [(1.0, 4.0)]
    assert joined([(1.0, 2.4), (3.01, 4.0)], 0.6) == [(1.0, 2.4), (3.01, 4.0)]


def test_stop_latency_is_how_long_both_speak():
    assert stop_latencies_s(session(30, [(5, 7)], [(1, 5.7)])) == close(0.7)
    # A robot that pauses for 0.4 s has not stopped; one that pauses for 0.6 s has.
    assert stop_latencies_s(session(30, [(5, 7)], [(1, 5.7), (6.1, 6.5)])) == close(1.5)
    assert stop_latencies_s(session(30, [(5, 7)], [(1, 5.7), (6.3, 6.5)])) == close(0.7, 0.2)
    assert stop_latencies_s(session(30, [(5, 7)], [(7, 9)])) == ()


def test_a_person_who_pauses_for_a_breath_has_interrupted_once():
    # Joined to 4 to 6.2 s and 7 to 9 s.
    made = session(30, [(4, 5), (5.4, 6.2), (7, 9)], [(1, 20)])
    assert stop_latencies_s(made) == close(2.2, 2.0)


def test_response_latency_is_the_wait_for_the_robots_next_beginning():
    made = session(30, [(1, 3), (12, 13)], [(4.5, 8), (13.2, 15)])
    assert response_latencies_s(made) == close(1.5, 0.2)
    # Two stretches wait for the same beginning: the shorter wait counts.
    assert response_latencies_s(session(30, [(1, 3), (5, 6)], [(6.9, 8)])) == close(0.9)
    # The robot's 0.5 s of silence are a pause in its speech, no new beginning.
    assert response_latencies_s(session(30, [(1, 3)], [(0.5, 2.9), (3.4, 5)])) == ()


def test_only_what_is_said_to_the_robot_has_these_latencies():
    made = session(30, [(5, 5.4, "backchannel")], [(1, 9), (10, 12)])
    assert stop_latencies_s(made) == ()
    assert response_latencies_s(made) == ()
    assert stop_latencies_s(made, ["backchannel"]) == close(0.4)
    assert response_latencies_s(made, ["backchannel"]) == close(4.6)


stretches = st.lists(
    st.tuples(st.integers(0, 300), st.integers(1, 40)).map(lambda t: (t[0] / 10, sum(t) / 10)),
    max_size=6,
)


@given(stretches, stretches, st.floats(-50, 50))
def test_both_latencies_are_those_of_any_other_clock(user, agent, shift_s):
    def moved(by_s):
        return session(
            100, [(a + by_s, b + by_s) for a, b in user], [(a + by_s, b + by_s) for a, b in agent]
        )

    here, there = moved(0.0), moved(shift_s)
    assert close(*stop_latencies_s(here)) == stop_latencies_s(there)
    assert close(*response_latencies_s(here)) == response_latencies_s(there)


def test_alerts_are_matched_by_name_and_time():
    made = session(
        100,
        events=[(10, "ball"), (30, "cup"), (50, "ball"), (70, "cup")],
        alerts=[
            (11, "ball"),  # 1 s late
            (29.5, "cup"),  # as early as may be
            (31, "cup"),  # that was told already
            (54, "ball"),  # 4 s late
            (70, "ball"),  # the wrong name
            (90, "cup"),  # nothing there
        ],
    )
    strict, mild = reported(made, 2.0), reported(made, 5.0)
    assert strict.delays_s == close(1.0, -0.5)
    assert (strict.events, strict.alerts, strict.duplicates, strict.false_alarms) == (4, 6, 1, 3)
    assert mild.delays_s == close(1.0, -0.5, 4.0)
    assert (mild.duplicates, mild.false_alarms) == (1, 2)


@pytest.mark.parametrize(
    ("delay_s", "hit"), [(-0.6, False), (-0.5, True), (2.0, True), (2.1, False)]
)
def test_half_a_second_early_to_two_late_is_in_time(delay_s, hit):
    made = session(60, events=[(10.2, "ball")], alerts=[(10.2 + delay_s, "ball")])
    assert len(reported(made, 2.0).delays_s) == hit


times = st.lists(st.integers(0, 60).map(lambda t: t / 10), max_size=5)


@given(times, times, st.floats(0, 50))
def test_as_many_alerts_are_matched_as_can_be_on_any_clock(events, alerts, shift_s):
    def delays(by_s):
        made = session(
            100,
            events=[(t + by_s, "ball") for t in events],
            alerts=[(t + by_s, "ball") for t in alerts],
        )
        return reported(made, 2.0).delays_s

    def possible(events, alerts):
        """The most pairs, by trying all."""
        if not events or not alerts:
            return 0
        best = possible(events[1:], alerts)
        for i, alert in enumerate(alerts):
            if -EARLY_S - 1e-6 <= alert - events[0] <= 2.0 + 1e-6:
                best = max(best, 1 + possible(events[1:], alerts[:i] + alerts[i + 1 :]))
        return best

    assert len(delays(0.0)) == possible(events, alerts)
    assert close(*delays(0.0)) == delays(shift_s)

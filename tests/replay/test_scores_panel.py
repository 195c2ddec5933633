"""The figures of many sessions: worked out by hand, hidden where few, the same however split."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.replay.scores import Session, pool
from minicpmo_ros.replay.scores.session import KINDS
from minicpmo_ros.replay.scores.turn_bench import conversation_of
from tests.replay.scored import session

# 40 s in which each thing happens once or twice.
WHOLE = session(
    40,
    user=[
        (1.0, 3.0),  # answered after 1.0 s
        (9.2, 10.8, "interruption"),  # silent after 0.8 s, answered 1.2 s after its end
        (14.0, 14.4, "backchannel"),  # talked through
        (16.0, 16.2, "tic"),  # talked through
        (18.4, 19.4, "not_directed"),  # talked through
        (22.0, 23.0),  # not answered
        (26.0, 27.0),  # cut into at 26.6 s: not counted as a turn
        (32.0, 33.0, "not_directed"),  # answered, and should not have been
        (37.0, 37.4, "tic"),  # left alone
    ],
    agent=[(4.0, 10.0), (12.0, 20.0), (26.6, 30.0), (34.6, 36.0)],
    events=[(5, "ball"), (15, "cup")],
    alerts=[(6, "ball"), (18, "cup"), (19, "cup"), (30, "ball")],
)
FIGURES = {
    "L_R": (1.1, 2),
    "R_R": (2 / 3, 3),
    "L_Y": (0.8, 1),
    "R_Y": (1.0, 1),
    "I_A": (1 / 3, 3),
    "S_BC": (1.0, 1),
    "S_VT": (1.0, 2),
    "S_ND": (0.5, 2),
    # Both speak from 9.2 to 10.0 s and from 26.6 to 27.0 s.
    "stop_latency": (0.6, 2),
    # 3.0 to 4.0, 10.8 to 12.0, 23.0 to 26.6, 27.0 to 34.6 s.
    "response_latency": ((1.0 + 1.2 + 3.6 + 7.6) / 4, 4),
    # Within 2 s the ball is told; within 5 s the cup, too, and again.
    "alert_precision_2s": (1 / 4, 4),
    "alert_recall_2s": (1 / 2, 2),
    "alert_f1_2s": (1 / 3, 2),
    "alert_latency_2s": (1.0, 1),
    "alert_precision_5s": (2 / 4, 4),
    "alert_recall_5s": (1.0, 2),
    "alert_f1_5s": (2 / 3, 2),
    "alert_latency_5s": (2.0, 2),
    "alert_precision_10s": (2 / 4, 4),
    "alert_recall_10s": (1.0, 2),
    "alert_f1_10s": (2 / 3, 2),
    "alert_latency_10s": (2.0, 2),
    "duplicates_per_event": (1 / 2, 2),
    # One in 40 s.
    "false_alerts_per_10min": (15.0, 1),
    "false_alerts_per_hour": (90.0, 1),
}


def test_the_figures_are_those_worked_out_by_hand():
    panel = pool([WHOLE], least=1)
    assert list(panel.scores) == list(FIGURES)
    for name, (value, count) in FIGURES.items():
        assert panel[name].value == pytest.approx(value), name
        assert panel[name].count == count, name


def test_figures_of_few_events_are_hidden_and_their_counts_are_not():
    few, enough = pool([WHOLE] * 3), pool([WHOLE] * 5)
    assert few["R_R"].value is None
    assert few["R_R"].count == 9
    assert enough["R_R"].value == pytest.approx(2 / 3)
    assert enough["L_R"].value == pytest.approx(1.1)
    assert enough["L_Y"].value is None
    assert few["false_alerts_per_10min"].value == pytest.approx(15.0)


def test_figures_are_named_as_in_every_json_of_ours():
    figures = pool([WHOLE], least=2).as_figures("nano")
    assert figures["nano.S_ND"] == 0.5
    assert figures["nano.S_ND.count"] == 2
    assert "nano.S_BC" not in figures
    assert figures["nano.S_BC.count"] == 1
    assert pool([WHOLE], least=1).as_figures()["R_Y"] == 1.0


def test_the_table_shows_every_score_and_a_dash_for_what_is_hidden():
    console = Console(width=100)
    with console.capture() as printed:
        console.print(pool([WHOLE], least=2).table())
    rows = {line.split()[0]: line.split()[1:] for line in printed.get().splitlines()}
    assert rows.keys() >= FIGURES.keys()
    assert rows["R_R"] == ["0.667", "3"]
    assert rows["S_BC"] == ["-", "1"]


def test_alerts_are_not_judged_where_nobody_wrote_down_the_events():
    unknown = replace(WHOLE, events=None, duration_s=400.0)
    alone, both = pool([unknown], least=1), pool([unknown, WHOLE], least=1)
    assert alone["false_alerts_per_hour"].value is None
    assert alone["alert_precision_2s"] == alone["alert_recall_2s"]
    assert alone["alert_recall_2s"].count == 0
    assert both["false_alerts_per_hour"].value == pytest.approx(90.0)
    assert both.duration_s == 440.0


def test_no_sessions_and_senseless_limits():
    assert pool([]).sessions == 0
    assert all(score.value is None for score in pool([], least=1).scores.values())
    with pytest.raises(ConfigError):
        pool([], least=0)
    with pytest.raises(ConfigError):
        pool([], within_s=())


def test_turns_in_the_shape_of_turn_bench():
    made = conversation_of(WHOLE, "c1")
    assert made == {
        "conversation_id": "c1",
        "speaker_1": {"eot": [4.0, 12.0], "interruption": [10.0]},
        "speaker_2": {"eot": [10.0, 20.0, 30.0, 36.0], "interruption": [26.6]},
    }


BLOCK_S = 20


# Tenths of a second: ties between ticks are among them.
def _stretches(first: int) -> st.SearchStrategy[list[tuple[float, float]]]:
    """first: earliest start."""
    one = st.tuples(st.integers(first, 120), st.integers(1, 30))
    return st.lists(one.map(lambda t: (t[0] / 10, sum(t) / 10)), max_size=4)


@st.composite
def blocks(draw) -> Session:
    """20 s that begin with a turn and end with silence, so that nothing reaches into the next."""
    user = [(0.4, 1.0, "turn")]
    user += [(*stretch, draw(st.sampled_from(KINDS))) for stretch in draw(_stretches(17))]
    agent = draw(_stretches(10))
    tells = st.lists(
        st.tuples(st.integers(0, 50).map(lambda t: t / 10), st.sampled_from(["ball", "cup"])),
        max_size=3,
    )
    return session(BLOCK_S, user, agent, draw(tells), draw(tells))


def shifted(made: Session, by_s: float, duration_s: float) -> Session:
    def moved(items):
        return tuple(
            replace(i, t_s=i.t_s + by_s)
            if hasattr(i, "t_s")
            else replace(i, start_s=i.start_s + by_s, stop_s=i.stop_s + by_s)
            for i in items
        )

    return Session(
        duration_s, moved(made.user), moved(made.agent), moved(made.events), moved(made.alerts)
    )


def figures(*sessions: Session) -> dict[str, float]:
    return pool(sessions, least=1).as_figures()


@settings(max_examples=200)
@given(blocks(), st.integers(0, 500))
def test_silence_in_front_changes_nothing_but_the_rates_of_false_alerts(made, ticks):
    late = shifted(made, ticks / 5, BLOCK_S + ticks / 5)
    here, there = figures(made), figures(late)
    for figure in (here, there):
        for name in ("false_alerts_per_10min", "false_alerts_per_hour"):
            del figure[name]
    assert there == pytest.approx(here, abs=1e-6)


def ends_in_time(made: Session) -> bool:
    """What is said long after a session's last turn is no answer to it, but would be one to the
    same turn in a longer session, whose next turn comes later still."""
    last_s = max(one.stop_s for one in made.user if one.kind in ("turn", "interruption"))
    return all(one.start_s < last_s + 4.6 for one in made.agent)


@settings(max_examples=200)
@given(st.lists(blocks().filter(ends_in_time), min_size=1, max_size=4))
def test_one_long_session_has_the_figures_of_its_parts(parts):
    placed = [shifted(part, i * BLOCK_S, BLOCK_S * len(parts)) for i, part in enumerate(parts)]
    whole = Session(
        BLOCK_S * len(parts),
        sum((p.user for p in placed), ()),
        sum((p.agent for p in placed), ()),
        sum((p.events or () for p in placed), ()),
        sum((p.alerts for p in placed), ()),
    )
    assert figures(whole) == pytest.approx(figures(*parts), abs=1e-6)


@given(blocks())
def test_without_a_person_there_is_nothing_to_take_turns_with(made):
    panel = pool([replace(made, user=())], least=1)
    for name in list(FIGURES)[:10]:
        assert panel[name].value is None
        assert panel[name].count == 0


@given(st.lists(blocks(), max_size=3))
def test_every_rate_but_that_of_cutting_in_is_a_share(parts):
    for name, value in figures(*parts).items():
        if name.startswith(("R_", "S_", "alert_precision", "alert_recall", "alert_f1")):
            assert math.isfinite(value)
            assert name.endswith(".count") or 0.0 <= value <= 1.0

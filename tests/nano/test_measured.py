"""What is measured: a robot that does all that is right has full marks, others have not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from minicpmo_ros.nano.episode import Episode
from minicpmo_ros.nano.evaluation import QUIET, figures
from minicpmo_ros.nano.living import Done, turns
from minicpmo_ros.nano.long_session import drift, thirds
from minicpmo_ros.nano.measured import Measured, agreement, share
from minicpmo_ros.nano.stage_set import long_set
from minicpmo_ros.replay.scores import pool
from tests.nano.test_episode import episodes


def ideal(episode: Episode) -> list[Done]:
    return [Done(one.text, one.ends, 0.0, 0.0, 1.0) for one in episode.units]


def mute(episode: Episode) -> list[Done]:
    return [Done("", False, 1.0, 0.0, 1.0) for _ in episode.units]


@pytest.fixture(scope="module")
def directed() -> list[Episode]:
    return episodes(160)


def measured(directed: list[Episode], robot) -> Measured:
    found = Measured()
    for episode in directed:
        found.add(episode, robot(episode))
    return found


def test_who_does_what_is_right_has_full_marks(directed) -> None:
    found = measured(directed, ideal)
    assert share(found.units) == 1.0
    assert share(found.all_answers) == 1.0
    assert len(found.all_answers) > 200
    assert found.answers and found.seen and not found.wrong
    asked = pool(found.asked)
    assert asked["R_R"].value == pytest.approx(1.0, abs=0.01)
    assert asked["I_A"].value == pytest.approx(0.0, abs=0.05)
    panel = pool(found.sessions)
    assert panel["R_Y"].value == pytest.approx(1.0, abs=0.05)
    assert panel["S_BC"].value == pytest.approx(1.0, abs=0.1)
    assert panel["alert_recall_2s"].value == 1.0
    assert panel["false_alerts_per_10min"].value == 0.0


def test_who_never_speaks_has_none(directed) -> None:
    found = measured(directed, mute)
    assert share(found.all_answers) == 0.0
    assert pool(found.asked)["R_R"].value == 0.0
    assert pool(found.sessions)["alert_recall_2s"].value == 0.0
    assert found.wrong


def test_a_word_that_is_wrong_makes_the_answer_wrong(directed) -> None:
    def one_word_off(episode: Episode) -> list[Done]:
        return [replace(one, text=one.text.replace("I", "You")) for one in ideal(episode)]

    found = measured(directed, one_word_off)
    assert 0.2 < share(found.all_answers) < 0.9
    assert share(found.units) == 1.0


def test_an_answer_two_units_late_counts_as_none(directed) -> None:
    def late(episode: Episode) -> list[Done]:
        done = ideal(episode)
        return [*mute(episode)[:2], *done[:-2]]

    assert share(measured(directed, late).all_answers) < 0.1


def test_turns_are_put_together_from_units() -> None:
    done = [Done(text, ends, 0, 0, 0) for text, ends in [("", False), ("I see", False)]]
    done += [Done(" a ball.", True, 0, 0, 0), Done("Yes.", True, 0, 0, 0)]
    done += [Done("One,", False, 0, 0, 0), Done("", True, 0, 0, 0)]
    assert [(one.unit, one.text, one.units, one.whole) for one in turns(done)] == [
        (1, "I see a ball.", 2, True),
        (3, "Yes.", 1, True),
        (4, "One,", 1, False),
    ]


def test_the_figures_say_which_goals_are_met(directed) -> None:
    quiet = Measured(units=[True] * 19 + [False])
    found = {one.name: one for one in figures({"espeak": measured(directed, ideal), QUIET: quiet})}
    assert found["nano.answers_espeak"].met
    assert found["nano.R_R"].met
    assert found["nano.false_speech"].value == pytest.approx(0.05)
    assert not found["nano.false_speech"].met


def test_a_long_session_is_compared_end_with_beginning() -> None:
    parts = [Measured(answers=[True]) for _ in range(4)] + [Measured(answers=[False])] * 2
    found = {one.name: one.value for one in drift(*thirds(parts))}
    assert found["nano.long_answers_first_third"] == 1.0
    assert found["nano.long_answers_last_third"] == 0.0
    assert math.isnan(found["nano.long_units_last_third"])


def test_a_long_set_goes_from_scene_to_scene() -> None:
    stage = long_set(np.random.default_rng(2), 200, scene_s=40)
    seen = [frozenset(one.name for one in stage.view(unit).things or ()) for unit in range(200)]
    assert len(set(seen)) > 8
    assert all(len(one) <= 4 for one in seen)


def test_decisions_agree_where_both_speak_or_both_listen() -> None:
    one, other = Measured(said=["", "Hello!", "", "Yes."]), Measured(said=["", "Hi!", "No.", ""])
    assert agreement(one, other) == 0.5
    assert agreement(one, one) == 1.0

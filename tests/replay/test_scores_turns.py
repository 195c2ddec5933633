"""Turn-taking: what counts as answered, yielded, cut in, ignored, and what is not judged at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minicpmo_ros.errors import InputError
from minicpmo_ros.replay.scores import AgentSegment, Session, UserSegment
from minicpmo_ros.replay.scores.ticks import Run, runs_of, tick_at
from minicpmo_ros.replay.scores.turn_taking import TurnTaking, turn_taking
from tests.replay.scored import session


def latencies(made: TurnTaking) -> list[int]:
    """Of the answers, in ticks."""
    return [answer.start - turn.stop for turn, answer in made.answered]


def ignored(made: TurnTaking) -> list[str]:
    return [kind for kind, _ in made.ignored]


def heeded(made: TurnTaking) -> list[str]:
    return [kind for kind, _ in made.heeded]


@pytest.mark.parametrize(
    ("t_s", "edge"), [(0.0, 0), (0.09, 0), (0.1, 1), (0.29, 1), (0.7, 4), (1.1, 6), (3.0, 15)]
)
def test_times_go_to_the_nearest_edge_and_ties_to_the_later(t_s, edge):
    assert tick_at(t_s) == edge


def test_a_cough_shorter_than_a_tick_has_one_and_what_touches_is_one():
    assert runs_of([(3.02, 3.08, False)], 50) == [Run(15, 16, 3.02, 3.08)]
    (run,) = runs_of([(2.0, 3.0, True), (1.0, 1.95, False)], 50)
    assert (run.start, run.stop, run.start_s, run.stop_s, run.finished) == (5, 15, 1.0, 3.0, True)


def test_an_answer_is_timed_from_the_end_of_the_turn():
    made = turn_taking(session(20, [(1, 3)], [(4.4, 8)]))
    assert latencies(made) == [7]
    assert (made.unanswered, made.yielded, made.cut_in) == ((), (), ())


def test_a_turn_is_unanswered_when_the_person_has_to_speak_again():
    made = turn_taking(session(20, [(1, 3), (5, 6)], [(7, 8)]))
    assert [turn.start_s for turn in made.unanswered] == [1]
    assert latencies(made) == [5]


@pytest.mark.parametrize(("silence_s", "count"), [(4.8, 0), (5.0, 1)])
def test_a_last_turn_is_unanswered_after_five_seconds_of_session(silence_s, count):
    assert len(turn_taking(session(3 + silence_s, [(1, 3)])).unanswered) == count


def test_what_is_said_long_after_the_last_turn_does_not_answer_it():
    late = turn_taking(session(60, [(1, 3)], [(40, 42)]))
    assert (len(late.answered), len(late.unanswered)) == (0, 1)
    assert latencies(turn_taking(session(60, [(1, 3)], [(8, 9)]))) == [25]


def test_a_backchannel_does_not_make_the_turn_before_it_unanswered():
    made = turn_taking(session(20, [(1, 3), (4, 4.4, "backchannel")], [(5, 8)]))
    assert latencies(made) == [10]
    assert made.unanswered == ()


@pytest.mark.parametrize(
    ("speech", "answered"),
    [
        ((2.6, 8.0), False),  # began over the turn, goes on
        ((2.0, 3.0), False),  # ended with it, and nothing follows before the session's end
        ((3.0, 8.0), True),  # in the very next tick
    ],
)
def test_a_turn_at_whose_end_the_robot_speaks_is_not_counted(speech, answered):
    made = turn_taking(session(7.8, [(1, 3)], [speech]))
    assert latencies(made) == ([0] if answered else [])
    assert made.unanswered == ()


def test_an_interruption_that_was_yielded_to_wants_an_answer():
    made = turn_taking(session(30, [(5, 7)], [(1, 5.6), (8, 12)]))
    assert [speech.stop - turn.start for turn, speech in made.yielded] == [3]
    assert latencies(made) == [5]


def test_an_interruption_that_was_not_yielded_to_does_not():
    made = turn_taking(session(30, [(5, 7, "interruption")], [(1, 9), (10, 12)]))
    assert [turn.start for turn in made.unyielded] == [25]
    assert (made.answered, made.unanswered, made.yielded) == ((), (), ())


@pytest.mark.parametrize(("late_s", "yields"), [(0.2, True), (2.0, True), (2.2, False)])
def test_two_seconds_are_the_limit_of_a_yield(late_s, yields):
    made = turn_taking(session(30, [(5, 6)], [(1, 5 + late_s)]))
    assert (len(made.yielded), len(made.unyielded)) == ((1, 0) if yields else (0, 1))


@pytest.mark.parametrize("kind", ["turn", "interruption", "backchannel"])
def test_the_robot_cuts_in_where_it_begins_over_the_person(kind):
    made = turn_taking(session(30, [(5, 7, kind)], [(6, 9)]))
    assert [run.start_s for run in made.cut_in] == [6]


@pytest.mark.parametrize("kind", ["tic", "not_directed"])
def test_what_is_not_said_to_the_robot_is_neither_turn_nor_cut_into(kind):
    made = turn_taking(session(30, [(5, 7, kind)], [(6, 9)]))
    assert (made.cut_in, made.answered, made.unanswered) == ((), (), ())
    assert heeded(made) == [kind]


@pytest.mark.parametrize("kind", ["backchannel", "tic", "not_directed"])
@pytest.mark.parametrize(("late_s", "right"), [(0.4, False), (1.0, False), (1.2, True)])
def test_speech_that_goes_on_for_a_second_has_ignored_it(kind, late_s, right):
    made = turn_taking(session(30, [(5, 5.4, kind)], [(1, 5 + late_s)]))
    assert (ignored(made), heeded(made)) == (([kind], []) if right else ([], [kind]))
    assert (made.yielded, made.unyielded) == ((), ())


@pytest.mark.parametrize("kind", ["tic", "not_directed"])
@pytest.mark.parametrize(("late_s", "right"), [(-0.4, False), (2.0, False), (2.2, True)])
def test_silence_until_two_seconds_after_it_has_ignored_it(kind, late_s, right):
    made = turn_taking(session(30, [(5, 6, kind)], [(6 + late_s, 12)]))
    assert (ignored(made), heeded(made)) == (([kind], []) if right else ([], [kind]))


def test_a_backchannel_in_silence_is_not_judged():
    made = turn_taking(session(30, [(5, 6, "backchannel")], [(6.4, 8)]))
    assert made == TurnTaking()


@pytest.mark.parametrize(
    ("kinds", "judged"),
    [
        (("backchannel", "tic", "not_directed", "interruption"), "backchannel"),
        (("interruption", "not_directed", "tic"), "tic"),
        (("turn", "not_directed"), "not_directed"),
    ],
)
def test_of_kinds_that_begin_together_the_first_in_priority_is_judged(kinds, judged):
    made = turn_taking(session(30, [(5, 6, kind) for kind in kinds], [(1, 12)]))
    assert ignored(made) == [judged]
    assert (made.heeded, made.yielded, made.unyielded) == ((), (), ())


def test_a_tic_and_the_interruption_after_it_are_judged_apart():
    """The silence is the answer to "stop", not to the cough before it."""
    made = turn_taking(session(30, [(5, 5.2, "tic"), (5.4, 6)], [(1, 5.8)]))
    assert len(made.yielded) == 1
    assert (made.ignored, made.heeded) == ((), ())


@pytest.mark.parametrize(
    "said",
    [
        [(3, 6), (4, 4.4, "tic")],  # within the turn
        [(3, 6), (3, 3.4, "tic")],  # begins with it
        [(3, 6), (7, 7.4, "tic")],  # while the answer is awaited
        [(3, 3.4, "tic"), (4, 6)],  # shortly before it
    ],
)
def test_what_an_answer_to_a_turn_would_look_like_heeding_is_not_judged(said):
    made = turn_taking(session(30, said, [(7.8, 9)]))
    assert latencies(made) == [9]
    assert (made.ignored, made.heeded) == ((), ())


def test_an_answer_to_a_short_turn_after_a_tic_is_no_answer_to_the_tic():
    made = turn_taking(session(30, [(3, 3.4, "tic"), (4, 4.2)], [(4.8, 9)]))
    assert latencies(made) == [3]
    assert (made.ignored, made.heeded) == ((), ())


def test_a_window_that_the_session_cuts_short_decides_nothing():
    assert turn_taking(session(6, [(5, 6)], [(1, 6)])) == TurnTaking()
    assert turn_taking(session(6, [(5.2, 5.4, "backchannel")], [(1, 6)])) == TurnTaking()
    assert turn_taking(session(6, [(4, 4.4, "tic")])) == TurnTaking()
    # But what has happened by then has happened.
    assert heeded(turn_taking(session(6, [(4, 4.4, "tic")], [(5, 6)]))) == ["tic"]


def test_speech_said_to_its_end_has_not_yielded_to_a_backchannel():
    made = session(30, [(5, 5.4, "backchannel")], [(1, 5.6)])
    assert heeded(turn_taking(made)) == ["backchannel"]
    whole = replace(made, agent=(AgentSegment(1, 5.6, finished=True),))
    assert ignored(turn_taking(whole)) == ["backchannel"]


@pytest.mark.parametrize(("start_s", "count"), [(5.8, 0), (5.6, 1)])
def test_one_last_tick_of_speech_is_how_sessions_stop(start_s, count):
    made = turn_taking(session(6, [(1, 2), (start_s, 6)]))
    assert len(made.unanswered) == count


def test_speech_outside_the_session_is_cut_off():
    made = turn_taking(session(10, [(-3, -1), (-1, 2), (12, 14)], [(3, 40)]))
    assert latencies(made) == [5]


@pytest.mark.parametrize(
    "make",
    [
        lambda: UserSegment(2.0, 2.0),
        lambda: UserSegment(1.0, float("nan")),
        lambda: UserSegment(1.0, 2.0, "shout"),  # type: ignore[arg-type]
        lambda: AgentSegment(3.0, 2.0),
        lambda: Session(0.0),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(InputError):
        make()

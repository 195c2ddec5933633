"""What the model says though nobody spoke to it is an alert; what it was asked for is none."""

from __future__ import annotations

from minicpmo_ros.brains.api import AlertNote
from minicpmo_ros.brains.local.unasked import KIND, Unasked
from minicpmo_ros.brains.publishing import AlertLog
from minicpmo_ros.messages import Severity
from tests.brains.local.robot import NOBODY, ns, picture, second, somebody


class Story:
    """Units one after the other: who speaks in them, what is seen, what the robot says."""

    def __init__(self, after_s: float = 3.0) -> None:
        self.watch = Unasked(after_s)
        self.log = AlertLog()
        self.k = 0
        self.notes: tuple[AlertNote, ...] = ()

    def unit(self, says: str | None = None, *, user: bool = False, end: bool = False, sees=()):
        around = somebody(self.k, self.k + 1) if user else NOBODY
        unit = second(self.k, *sees)
        self.watch.notice(unit, around)
        self.notes = self.watch.follow(
            unit, speaks=says is not None, text=says or "", end_of_turn=end
        )
        self.k += 1
        return [(a.number, a.active, a.text) for a in self.log.apply(unit, 0, self.notes)]


def test_a_turn_that_nobody_asked_for_is_an_alert_whose_text_grows():
    story = Story()
    story.unit(sees=[picture(0.5)])
    assert story.unit("Look ", sees=[picture(1.5)]) == [(1, True, "Look")]
    (note,) = story.notes
    assert (note.kind, note.severity) == (KIND, Severity.NOTICE)
    assert note.evidence == (ns(0.5), ns(1.5))
    assert story.unit("out!", end=True, sees=[picture(2.5)]) == [(1, True, "Look out!")]
    assert story.notes[0].evidence == (ns(0.5), ns(1.5))


def test_an_answer_is_none_and_neither_is_one_within_the_silence_that_counts():
    for silent in (0, 1):
        story = Story(after_s=3.0)
        story.unit(user=True)
        for _ in range(silent):
            story.unit()
        assert story.unit("Yes.", end=True) == []


def test_a_silence_of_just_that_length_makes_it_the_robots_own_idea():
    story = Story(after_s=3.0)
    story.unit(user=True)
    assert [story.unit() for _ in range(2)] == [[], []]
    assert story.unit("By the way.", end=True) == [(1, True, "By the way.")]


def test_after_the_clock_went_back_silence_counts_anew():
    story = Story(after_s=3.0)
    story.k = 1000
    story.unit(user=True)
    story.k = 0
    assert [story.unit() for _ in range(3)] == [[], [], []]
    assert story.unit("By the way.", end=True) == [(1, True, "By the way.")]


def test_voice_that_goes_on_into_the_unit_counts_to_its_end():
    story = Story(after_s=1.0)
    story.watch.notice(second(0), somebody(-5, None))
    assert story.watch.follow(second(0), speaks=True, text="Yes.", end_of_turn=True) == ()


def test_a_question_asked_over_the_robots_words_does_not_change_what_they_are():
    story = Story()
    assert story.unit("Look ") == [(1, True, "Look")]
    assert story.unit("out", user=True) == [(1, True, "Look out")]


def test_another_one_is_another_alert():
    story = Story()
    assert story.unit("Smoke.", end=True, sees=[picture(0.5)]) == [(1, True, "Smoke.")]
    assert story.unit() == []
    assert story.unit("Fire!", end=True, sees=[picture(2.5)]) == [
        (1, False, "Smoke."),
        (2, True, "Fire!"),
    ]
    assert [note.evidence for note in story.notes] == [(ns(0.5),), (ns(0.5), ns(2.5))]


def test_a_turn_that_follows_at_once_is_another_too():
    story = Story()
    story.unit("Smoke.", end=True)
    assert story.unit("Fire!") == [(1, False, "Smoke."), (2, True, "Fire!")]


def test_one_long_after_the_first_has_expired_clears_nothing():
    story = Story()
    story.unit("Smoke.", end=True)
    for _ in range(40):
        story.unit()
    assert story.unit("Fire!", end=True) == [(2, True, "Fire!")]


def test_an_answer_in_between_leaves_the_alert_to_expire():
    story = Story()
    story.unit("Smoke.", end=True)
    story.unit(user=True)
    assert story.unit("I said smoke.", end=True) == []


def test_the_newest_four_pictures_are_the_evidence():
    story = Story()
    for k in range(5):
        story.unit(sees=[picture(k + 0.2), picture(k + 0.7)])
    story.unit("Look.", end=True)
    assert story.notes[0].evidence == tuple(map(ns, (3.2, 3.7, 4.2, 4.7)))


def test_an_alert_waits_for_words():
    story = Story()
    assert story.unit("", sees=[picture(0.5)]) == []
    assert story.unit("Look.", sees=[picture(1.5)]) == [(1, True, "Look.")]
    assert story.notes[0].evidence == (ns(0.5),)


def test_after_an_interruption_the_next_words_are_a_turn_of_their_own():
    story = Story(after_s=0.0)
    story.unit("Look ")
    story.watch.cut()
    assert story.unit("What?") == [(1, False, "Look"), (2, True, "What?")]


def test_a_new_session_knows_of_none_before():
    story = Story()
    story.unit("Smoke.", sees=[picture(0.5)])
    story.watch.forget()
    assert story.unit("Fire!", end=True) == [(1, True, "Fire!")]
    assert story.notes[0].evidence == ()

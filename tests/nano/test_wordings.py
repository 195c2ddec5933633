"""What is learned from and what understanding is measured with stay apart."""

from __future__ import annotations

from collections import Counter

from minicpmo_ros.nano.answers import Slots
from minicpmo_ros.nano.wordings import INTENTS

LEARNED = [one for some in INTENTS.values() for one in some.learned]
HELD_OUT = [one for some in INTENTS.values() for one in some.held_out]


def test_no_wording_that_is_held_out_is_in_one_that_is_learned() -> None:
    assert not [(held, one) for held in HELD_OUT for one in LEARNED if f" {held} " in f" {one} "]


def test_a_wording_means_one_thing() -> None:
    assert [one for one, times in Counter(LEARNED + HELD_OUT).items() if times > 1] == []


def test_each_thing_can_be_said_in_many_ways_that_slots_fill() -> None:
    slots = Slots(kind="ball", colour="red", place="on the left", word="tiger", number=3)
    for intent, some in INTENTS.items():
        assert len(some.learned) >= 9 and some.held_out, intent
        for wording in (*some.learned, *some.held_out):
            assert "{" not in slots.fill(wording), wording

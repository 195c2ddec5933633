"""What is right to say to a question about what is seen and what was said."""

from __future__ import annotations

import pytest

from minicpmo_ros.media.world.things import Thing
from minicpmo_ros.nano.answers import (
    CHARACTERS_PER_UNIT,
    FIXED,
    NO_PICTURE,
    UNKNOWN,
    Memory,
    Slots,
    View,
    Watch,
    answer,
    change,
    chunks,
)

BALL = Thing("ball", "red", "big", 0.15, 0.5)
BOX = Thing("box", "blue", "small", 0.85, 0.5)
OTHER_BALL = Thing("ball", "orange", "small", 0.5, 0.5)
TWO = View((BOX, BALL))


@pytest.mark.parametrize(
    ("intent", "slots", "said"),
    [
        ("see", Slots(), "I see a red ball and a blue box."),
        ("colour_of", Slots("ball"), "The ball is red."),
        ("colour_of", Slots("star"), "The star is not there."),
        ("where", Slots("box", "blue"), "The blue box is on the right."),
        ("is_there", Slots("box", "green"), "The green box is not there."),
        ("is_there", Slots("box"), "The box is there."),
        ("how_many", Slots(), "I see two."),
        ("how_many_kind", Slots("star"), "I see zero."),
        ("what_at", Slots(place="left"), "A red ball."),
        ("what_at", Slots(place="middle"), "Nothing."),
        ("size_of", Slots("box"), "The box is small."),
        ("changed", Slots(), "Nothing changed."),
        ("count", Slots(number=3), "One, two, three."),
        ("repeat", Slots(word="river"), "River."),
        ("recall", Slots(), "You told me no word."),
        ("stop", Slots(), ""),
    ],
)
def test_a_question_has_one_right_answer(intent: str, slots: Slots, said: str) -> None:
    assert answer(intent, slots, TWO, Memory()) == said


def test_it_goes_on_from_what_was_spoken_of() -> None:
    memory = Memory()
    assert answer("colour_of", Slots("ball"), TWO, memory) == "The ball is red."
    assert answer("its_place", Slots(), TWO, memory) == "The ball is on the left."
    assert answer("and_the", Slots("box"), TWO, memory) == "The box is on the right."
    assert answer("another", Slots(), TWO, memory) == "No."
    assert answer("another", Slots(), View((BALL, OTHER_BALL)), Memory(kind="ball")) == "Yes."


def test_a_word_is_remembered() -> None:
    memory = Memory()
    assert answer("remember", Slots(word="tiger"), View(None), memory) == "I will remember tiger."
    assert answer("recall", Slots(), View(None), memory) == "Tiger."


def test_without_a_camera_or_in_another_world_it_says_so() -> None:
    assert answer("see", Slots(), View(None), Memory()) == NO_PICTURE
    assert answer("see", Slots(), View((), strange=True), Memory()) == UNKNOWN
    assert answer("hello", Slots(), View((), strange=True), Memory()) == FIXED["hello"]


@pytest.mark.parametrize(
    ("intent", "slots", "before", "now", "alert"),
    [
        ("watch_appears", Slots("box"), (BALL,), (BALL, BOX), "A box appeared!"),
        ("watch_appears", Slots("ball", "orange"), (), (OTHER_BALL,), "An orange ball appeared!"),
        ("watch_leaves", Slots("box", "blue"), (BALL, BOX), (BALL,), "The blue box disappeared!"),
        ("watch_turns", Slots("ball", "orange"), (BALL,), (OTHER_BALL,), "The ball turned orange!"),
        ("watch_count", Slots(number=2), (BALL,), (BALL, BOX), "There are two things!"),
    ],
)
def test_what_is_watched_for_happens_between_two_pictures(
    intent, slots, before, now, alert
) -> None:
    watch = Watch(intent, slots)
    assert watch.alert == alert
    assert watch.happens(before, now)
    assert not watch.happens(now, now)
    assert not watch.happens(now, before)


def test_what_is_promised_can_be_cancelled() -> None:
    memory = Memory()
    said = answer("watch_leaves", Slots("ball", "red"), TWO, memory)
    assert said == "I will tell you when the red ball disappears."
    assert [one.intent for one in memory.watches] == ["watch_leaves"]
    answer("cancel", Slots(), TWO, memory)
    assert memory.watches == []


def test_a_change_is_told_in_words() -> None:
    assert change((BALL,), (BALL, BOX)) == "The blue box appeared."
    assert change((BALL, BOX), (BALL,)) == "The blue box disappeared."
    assert change((BALL,), (OTHER_BALL,)) == "The ball turned orange."
    assert change((BALL,), (BALL,)) == ""


@pytest.mark.parametrize(
    "text", [*FIXED.values(), "I see a red ball, a blue box and a green star."]
)
def test_the_chunks_of_a_text_are_the_text(text: str) -> None:
    parts = chunks(text)
    assert "".join(parts) == text
    assert all(len(part) <= CHARACTERS_PER_UNIT + 1 for part in parts)
    assert all(len(part.split()) <= 3 for part in parts)

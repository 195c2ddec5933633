"""Talk for somebody else: nothing in it is asked of the robot, and there is no end of it."""

from __future__ import annotations

import numpy as np

from minicpmo_ros.media.world.things import KINDS
from minicpmo_ros.nano.chatter import beyond, chatter
from minicpmo_ros.nano.wordings import INTENTS

SLOTS = {"colour": "red", "place": "on the left", "word": "tiger", "n": "two"}
ASKED = {
    wording.format(thing=kind, kind=kind, kinds=kind, **SLOTS)
    for some in INTENTS.values()
    for wording in (*some.learned, *some.held_out)
    for kind in KINDS
}


def test_no_question_of_the_robot_s_is_in_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3_000):
        padded = f" {chatter(rng)} "
        assert not [one for one in ASKED if f" {one} " in padded], padded


def test_most_of_it_is_new_every_time_and_what_is_held_out_stays_out() -> None:
    rng = np.random.default_rng(1)
    learned = [chatter(rng) for _ in range(2_000)]
    words = {word for one in learned for word in one.split()}
    assert len(set(learned)) > 1_500 and len(words) > 2_000
    assert max(len(one.split()) for one in learned) < 20
    held_out = [chatter(rng, held_out=True) for _ in range(300)]
    assert not set(held_out) & set(learned)


def test_a_question_beyond_it_is_none_that_it_can_answer() -> None:
    rng = np.random.default_rng(2)
    for _ in range(1_000):
        assert beyond(rng) not in ASKED

"""Questions in writing: their layout, their answers, and the slots that they are answered from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.media.world.things import Thing
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.answers import listed
from minicpmo_ros.nano.examples import NO_LABEL, PICTURE, slots_of
from minicpmo_ros.nano.sizes import write_settings
from minicpmo_ros.nano.spotted import SPOTTED
from minicpmo_ros.nano.written import QUESTIONS, Questions

THINGS = (
    Thing("cup", "red", "small", 0.9, 0.3),
    Thing("ball", "blue", "big", 0.25, 0.5),
    Thing("star", "black", "small", 0.1, 0.8),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("nano")
    return Tokenizer(folder, write_settings(folder).llm.vocab)


def test_things_of_each_third_are_in_its_slots_from_left_to_right() -> None:
    slots = slots_of(THINGS, 16)
    assert slots.shape == (16, 4)
    taken = {int(row) for row in np.flatnonzero(slots.any(1))}
    assert taken == {0, 1, 10}
    assert slots[0].tolist() == [4, 6, 1, 1]  # the black star, small, on the left
    assert slots[1].tolist() == [1, 3, 2, 1]
    assert slots[10].tolist() == [8, 1, 1, 3]


def test_a_third_has_no_more_slots_than_its_share() -> None:
    crowd = tuple(Thing("ball", "red", "small", 0.05 * n, 0.5) for n in range(1, 7))
    assert np.flatnonzero(slots_of(crowd, 12).any(1)).tolist() == [0, 1, 2, 3]


def test_questions_follow_a_picture_and_only_answers_are_learned(tokenizer: Tokenizer) -> None:
    said: set[str] = set()
    for seed in range(40):
        written = Questions(tokenizer, 16).about(THINGS, np.random.default_rng(seed))
        ids, labels = written.ids, written.labels
        assert len(ids) == len(labels) == len(written.kinds) == len(written.words)
        assert np.flatnonzero(written.kinds == PICTURE).tolist() == list(range(2, 18))
        learned = np.flatnonzero(labels != NO_LABEL)
        assert (ids[learned + 1] == labels[learned]).all()
        spoken = labels[learned].tolist()
        assert spoken.count(tokenizer.control.turn_eos) == QUESTIONS
        begun = 0
        for at, token in enumerate(spoken):
            if token == tokenizer.control.turn_eos:
                said.add(tokenizer.decode(spoken[begun:at]))
                begun = at + 1
        assert not (written.words[learned] != NO_LABEL).any()
        spotted = {int(one) for one in written.words if one > 0}
        assert spotted <= {1 + index for index in SPOTTED.values()}
        assert spotted
    assert {"Three.", f"I see {listed(THINGS)}.", "On the right.", "It is blue.", "No."} <= said

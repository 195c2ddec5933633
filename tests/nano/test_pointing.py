"""Where attention is taught to look, in sequences of which the right places are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.media.world.things import COLOURS, KINDS, Life, Scene, Thing
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.changes import HOWS, NO_LABEL, at_ends, changes_of
from minicpmo_ros.nano.examples import PICTURE, slots_of
from minicpmo_ros.nano.naming import Gaze
from minicpmo_ros.nano.pointing import Pointing
from minicpmo_ros.nano.sizes import write_settings
from minicpmo_ros.nano.stage_set import StageSet
from minicpmo_ros.nano.written import Questions

QUERIES = 16
CUP = Thing("cup", "red", "small", 0.9, 0.3)
BALL = Thing("ball", "blue", "big", 0.25, 0.5)
# Behind the first query of a picture.
BALL_IS, CUP_IS, NOWHERE = 0, 10, QUERIES


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("nano")
    return Tokenizer(folder, write_settings(folder).llm.vocab)


class Script:
    """A sequence made unit by unit. first: the place of its last picture's first query."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.control = tokenizer, tokenizer.control
        self.ids: list[int] = []
        self.decides: list[int] = []
        self.slots: list[np.ndarray] = []
        self.first = 0

    def unit(self, *things: Thing) -> Script:
        control = self.control
        self.ids += [control.unit, control.image]
        self.first = len(self.ids)
        self.ids += [control.unk] * QUERIES + [control.image_end]
        self.slots.append(slots_of(things, QUERIES))
        self.decides.append(len(self.ids) - 1)
        return self

    def say(self, text: str, *, ends: bool = True) -> Script:
        control = self.control
        end = [control.turn_eos] if ends else []
        said = [control.speak, *self.tokenizer.encode(text), *end, control.chunk_eos]
        self.ids += [*said, control.unit_end]
        return self

    def place(self, word: str) -> int:
        """Of the last token of it."""
        (token,) = self.tokenizer.encode(f" {word}")
        return len(self.ids) - 1 - self.ids[::-1].index(token)

    def points(self, *what: int) -> list[list[int]]:
        """Of these kinds."""
        made = Pointing(self.tokenizer).points(self.ids, self.decides, self.slots)
        return [one for one in made.tolist() if one[0] in what]


@pytest.mark.parametrize(
    ("text", "word", "offset"),
    [
        ("The cup is red.", "cup", CUP_IS),
        ("The ball is on the left.", "ball", BALL_IS),
        ("The red cup is there.", "cup", CUP_IS),
        ("The green cup is not there.", "cup", NOWHERE),
        ("The star is not there.", "star", NOWHERE),
    ],
)
def test_a_name_points_at_the_query_of_its_thing(tokenizer, text, word, offset) -> None:
    made = Script(tokenizer).unit(BALL, CUP).say(text)
    assert made.points(Gaze.NAMED) == [[Gaze.NAMED, made.place(word), made.first + offset]]


@pytest.mark.parametrize(
    "text", ["The cup disappeared.", "I see two.", "A red cup appeared!", "Yes."]
)
def test_other_answers_point_at_nothing(tokenizer, text) -> None:
    assert (
        Script(tokenizer).unit(BALL, CUP).say(text).points(Gaze.NAMED, Gaze.CARRIED, Gaze.DESCRIBED)
        == []
    )


def test_of_two_alike_none_is_pointed_at(tokenizer) -> None:
    other = Thing("cup", "green", "big", 0.5, 0.5)
    assert Script(tokenizer).unit(CUP, other).say("The cup is red.").points(Gaze.NAMED) == []


def test_what_an_answer_says_in_later_units_is_about_the_thing_that_it_named(tokenizer) -> None:
    """Each of its words is looked for at the name, from the place before it."""
    made = Script(tokenizer).unit(BALL).say("The ball is", ends=False)
    name, first = made.place("ball"), made.first
    made.unit(CUP).say(" on the left.")
    assert made.points(Gaze.NAMED) == [[Gaze.NAMED, name, first + BALL_IS]]
    before = [made.place(word) - 1 for word in ("on", "the", "left")]
    assert made.points(Gaze.CARRIED) == [[Gaze.CARRIED, at, name] for at in before]
    assert made.ids[before[0]] == tokenizer.control.speak
    assert made.points(Gaze.DESCRIBED) == []


@pytest.mark.parametrize("start", ["I see", ""])
def test_a_list_looks_at_one_thing_after_the_other(tokenizer, start) -> None:
    """In the picture before which it began."""
    made = Script(tokenizer).unit(BALL, CUP).say(f"{start} a blue".strip(), ends=False)
    first, blue = made.first, made.place("blue")
    made.unit().say(" ball and a", ends=False)
    ball, article = made.place("ball"), made.place("a")
    made.unit(CUP).say(" red cup.")
    of_ball = [blue - 2, blue - 1, ball - 1]
    of_cup = [article - 1, made.place("red") - 1, made.place("cup") - 1]
    assert made.points(Gaze.DESCRIBED) == [
        *([Gaze.DESCRIBED, at, first + BALL_IS] for at in of_ball),
        *([Gaze.DESCRIBED, at, first + CUP_IS] for at in of_cup),
    ]
    assert made.points(Gaze.NAMED) == [
        [Gaze.NAMED, ball, first + BALL_IS],
        [Gaze.NAMED, made.place("cup"), first + CUP_IS],
    ]


def test_things_that_are_alike_are_listed_from_left_to_right(tokenizer) -> None:
    other = replace(BALL, x=0.5)
    made = Script(tokenizer).unit(BALL, other).say("I see a blue ball and a blue ball.")
    first = made.first
    targets = [target for _, _, target in made.points(Gaze.DESCRIBED)]
    assert targets == [first] * 3 + [first + 5] * 3
    one = Script(tokenizer).unit(BALL).say("I see a green ball and a blue ball.")
    assert one.points(Gaze.DESCRIBED) == []


@pytest.mark.parametrize(
    ("before", "now", "looked", "new"),
    [
        ((BALL,), (BALL, CUP), [BALL_IS, CUP_IS], CUP_IS),
        ((BALL, CUP), (CUP,), [BALL_IS, CUP_IS], BALL_IS),
        ((BALL,), (replace(BALL, colour="green"),), [BALL_IS], BALL_IS),
        ((BALL,), (BALL,), [BALL_IS], NOWHERE),
        ((BALL,), (CUP,), [BALL_IS, CUP_IS], None),
    ],
)
def test_what_is_new_is_looked_for_query_by_query(tokenizer, before, now, looked, new) -> None:
    made = Script(tokenizer).unit(*before)
    old = made.first
    made.say("Yes.").unit(*now)
    assert made.points(Gaze.BEFORE) == [
        [Gaze.BEFORE, made.first + row, old + row] for row in looked
    ]
    end = made.decides[-1]
    assert made.points(Gaze.NEW) == ([] if new is None else [[Gaze.NEW, end, made.first + new]])


@pytest.mark.parametrize(
    ("promise", "alert", "there", "gone"),
    [
        ("a red cup appears", "A red cup appeared!", (BALL, CUP), (BALL,)),
        ("the cup disappears", "The cup disappeared!", (CUP,), (BALL,)),
        ("the cup turns red", "The cup turned red!", (CUP,), (BALL,)),
    ],
)
def test_decisions_look_for_what_was_promised_until_it_was_told(
    tokenizer, promise, alert, there, gone
) -> None:
    made = Script(tokenizer).unit().say(f"I will tell you when {promise}.")
    name = made.place("cup")
    wanted = []
    for things, offset in ((gone, NOWHERE), (there, CUP_IS)):
        made.unit(*things)
        at = made.decides[-1]
        wanted += [[Gaze.AWAITED, at, name], [Gaze.FOUND, at, made.first + offset]]
    made.say(alert).unit(*gone)
    assert made.points(Gaze.AWAITED, Gaze.FOUND) == wanted


def test_a_number_of_things_is_awaited_and_not_looked_for(tokenizer) -> None:
    made = Script(tokenizer).unit().say("I will tell you when there are two things.")
    name = made.place("two")
    made.unit(BALL, CUP)
    assert made.points(Gaze.AWAITED, Gaze.FOUND) == [[Gaze.AWAITED, made.decides[-1], name]]


def test_what_was_cancelled_or_cut_off_is_not_awaited(tokenizer) -> None:
    made = Script(tokenizer).unit().say("I will tell you when a cup appears.")
    made.unit().say("I will not.")
    assert len(made.points(Gaze.AWAITED, Gaze.FOUND)) == 2  # of the decision to say so
    made = Script(tokenizer).unit().say("I will tell you when a red")
    made.unit(CUP)
    assert made.points(Gaze.AWAITED, Gaze.FOUND) == []


def _turn(ids: np.ndarray, at: int, tokenizer: Tokenizer) -> int:
    """The place at which the turn begins in which something is said."""
    control = tokenizer.control
    ended = np.flatnonzero(np.isin(ids[:at], (control.turn_eos, control.listen)))
    after = int(ended[-1]) if len(ended) else 0
    return after + int(np.flatnonzero(ids[after:] == control.speak)[0])


def test_stories_point_at_queries_of_their_own_pictures(tokenizer) -> None:
    stage = StageSet(Scene((Life(BALL), Life(CUP, enters_s=4.0))), phase_s=0.9)
    looked = set()
    for seed in range(40):
        story = Questions(tokenizer, QUERIES).story(stage, 8, np.random.default_rng(seed))
        firsts = np.flatnonzero(story.kinds == PICTURE)[::QUERIES]
        for what, at, target in story.points.tolist():
            assert target < at or (what == Gaze.NEW and target == at)
            if what in (Gaze.NAMED, Gaze.FOUND):
                since = at if what == Gaze.FOUND else _turn(story.ids, at, tokenizer)
                newest = int(firsts[firsts < since][-1])
                assert target - newest in (BALL_IS, CUP_IS, NOWHERE)
                looked.add((what, target - newest))
    assert {(Gaze.NAMED, BALL_IS), (Gaze.NAMED, CUP_IS), (Gaze.NAMED, NOWHERE)} <= looked
    assert {(Gaze.FOUND, CUP_IS), (Gaze.FOUND, NOWHERE)} <= looked


@pytest.mark.parametrize(
    ("before", "now", "wanted"),
    [
        ((BALL, CUP), (BALL, CUP), None),
        ((BALL,), (BALL, CUP), ("appeared", "cup", "red")),
        ((BALL, CUP), (CUP,), ("disappeared", "ball", "blue")),
        ((BALL, CUP), (BALL, replace(CUP, colour="green")), ("turned", "cup", "green")),
        ((CUP,), (replace(CUP, x=0.1),), None),  # that it moved is no answer
    ],
)
def test_what_is_new_in_a_picture_is_told_from_the_one_before(before, now, wanted) -> None:
    slots = [slots_of(some, QUERIES) for some in (before, now)]
    how, kind, colour = wanted or ("", "", "")
    some = (
        [1 + HOWS.index(how), 1 + KINDS.index(kind), 1 + COLOURS.index(colour)] if how else [0] * 3
    )
    assert changes_of(slots).tolist() == [[NO_LABEL] * 3, some]


def test_of_several_changes_at_once_none_is_told() -> None:
    others = (Thing("star", "red", "big", 0.5, 0.5), Thing("cone", "red", "big", 0.9, 0.5))
    slots = [slots_of(some, QUERIES) for some in ((BALL, CUP), others)]
    assert changes_of(slots).tolist() == [[NO_LABEL] * 3] * 2


def test_what_is_new_is_told_at_the_end_of_each_picture(tokenizer) -> None:
    made = Script(tokenizer).unit(BALL).say("Yes.").unit(BALL, CUP)
    found = at_ends(made.ids, tokenizer.control.image_end, made.slots)
    assert found[:, 0].tolist() == made.decides
    assert at_ends([1, 2], tokenizer.control.image_end, []).shape == (0, 4)


@pytest.mark.parametrize(
    ("answer", "things"),
    [
        ("The red cup appeared.", (BALL, CUP)),
        ("The blue ball disappeared.", ()),
        ("The ball turned green.", (replace(BALL, colour="green"),)),
    ],
)
def test_an_answer_about_a_change_looks_at_the_picture_that_showed_it(
    tokenizer, answer, things
) -> None:
    made = Script(tokenizer).unit(BALL).unit(*things)
    end = made.decides[-1]
    made.unit(*things).say(answer)
    words = [made.place(word) for word in answer.lower().strip(".").split()[1:-1]]
    the = tokenizer.encode("The")[0]
    first = made.ids.index(the)
    assert made.points(Gaze.CHANGED) == [[Gaze.CHANGED, at, end] for at in (first, *words)]


def test_a_change_that_was_not_seen_is_not_looked_for(tokenizer) -> None:
    made = Script(tokenizer).unit(BALL).unit(BALL, CUP)
    assert made.say("The green star appeared.").points(Gaze.CHANGED) == []

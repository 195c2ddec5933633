"""Questions in writing: their layout, their answers, and the slots that they are answered from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.media.world.things import COLOURS, KINDS, Life, Scene, Thing
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano import written
from minicpmo_ros.nano.answers import Memory, Slots, Watch, listed
from minicpmo_ros.nano.asking import Asking
from minicpmo_ros.nano.examples import NO_LABEL, PICTURE, slots_of
from minicpmo_ros.nano.sizes import write_settings
from minicpmo_ros.nano.spotted import SPOTTED
from minicpmo_ros.nano.stage_set import StageSet, hastened, still_set
from minicpmo_ros.nano.written import QUESTIONS, Questions

THINGS = (
    Thing("cup", "red", "small", 0.9, 0.3),
    Thing("ball", "blue", "big", 0.25, 0.5),
    Thing("star", "black", "small", 0.1, 0.8),
)

WATCHES = [
    *(Watch("watch_count", Slots(number=number)) for number in range(2, 5)),
    *(
        Watch(intent, Slots(kind, colour))
        for intent in ("watch_appears", "watch_leaves", "watch_turns")
        for kind in KINDS
        for colour in ("", *COLOURS)
    ),
]


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
        sheet = Questions(tokenizer, 16).about([THINGS, THINGS], np.random.default_rng(seed))
        ids, labels = sheet.ids, sheet.labels
        assert len(ids) == len(labels) == len(sheet.kinds) == len(sheet.words)
        shown = np.flatnonzero(sheet.kinds == PICTURE).tolist()
        assert shown == [*range(2, 18), *range(shown[16], shown[16] + 16)]
        learned = np.flatnonzero(labels != NO_LABEL)
        assert (ids[learned + 1] == labels[learned]).all()
        spoken = labels[learned].tolist()
        assert spoken.count(tokenizer.control.turn_eos) == 2 * QUESTIONS
        begun = 0
        for at, token in enumerate(spoken):
            if token == tokenizer.control.turn_eos:
                said.add(tokenizer.decode(spoken[begun:at]))
                begun = at + 1
        assert not (sheet.words[learned] != NO_LABEL).any()
        spotted = {int(one) for one in sheet.words if one > 0}
        assert spotted <= {1 + index for index in SPOTTED.values()}
        assert spotted
    assert {"I see three.", f"I see {listed(THINGS)}.", "The cup is on the right."} <= said
    assert {"The ball is blue.", "The star is small.", "The cup is there."} <= said


def test_a_story_tells_what_is_so_when_an_answer_begins(tokenizer: Tokenizer) -> None:
    """In every unit a picture, a decision, and three words at most; a turn that goes on does so in
    the next unit, and nothing else begins before it is over."""
    control = tokenizer.control
    stage = StageSet(Scene((Life(THINGS[0]), Life(THINGS[1], enters_s=4.0))), phase_s=0.9)
    told, listed_things = 0, set()
    for seed in range(150):
        story = Questions(tokenizer, 16).story(stage, 8, np.random.default_rng(seed))
        units = _units(story.ids.tolist(), tokenizer)
        assert len(units) == 8
        learned = np.flatnonzero(story.labels != NO_LABEL)
        assert (story.ids[learned + 1] == story.labels[learned]).all()
        words: list[int] = []
        begun = 0
        for number, unit in enumerate(units):
            assert unit[-1] == control.unit_end
            assert (control.listen in unit) != (control.speak in unit)
            if control.speak not in unit:
                assert not words
                continue
            said = unit[unit.index(control.speak) + 1 : unit.index(control.chunk_eos)]
            ends = control.turn_eos in said
            said = said[: len(said) - ends]
            assert 1 <= len(tokenizer.decode(said).split()) <= 3
            begun = begun if words else number
            words += said
            if not ends:
                continue
            text, words = tokenizer.decode(words), []
            if text in ("A blue ball appeared!", "A ball appeared!"):
                assert begun >= 4  # or as soon as what was being said is over
                told += begun == 4
            if text.startswith("I see a "):
                assert ("a blue ball" in text) == (begun >= 4)
                listed_things.add(text)
    assert told > 5
    assert {"I see a red cup.", "I see a blue ball and a red cup."} <= listed_things


def test_one_who_waits_says_nothing_until_it_happens(tokenizer: Tokenizer) -> None:
    """Between the promise and what was promised all units listen."""
    stage = StageSet(Scene((Life(THINGS[0]), Life(THINGS[1], enters_s=5.0))), phase_s=0.9)
    told = 0
    for seed in range(30):
        story = Questions(tokenizer, 16).story(stage, 8, np.random.default_rng(seed), waits=True)
        said = _said(story.ids.tolist(), tokenizer)
        awaited = ""
        for text in said:
            if text.startswith("I will tell you when"):
                assert not awaited
                awaited = text
            elif text:
                assert text.endswith("!") and awaited
                awaited = ""
                told += text in ("A blue ball appeared!", "A ball appeared!")
        assert said[0] == "" or said[0].startswith("I will tell you when")
    assert told > 5


def test_before_unlike_pictures_it_is_told_of_in_the_right_one(tokenizer: Tokenizer) -> None:
    """And in about every other picture, so that it cannot be guessed."""
    pictures: list[tuple[Thing, ...]] = [(), THINGS[:1], THINGS[1:], (), THINGS, THINGS[:2]]
    told = silent = 0
    for seed in range(60):
        sheet = Questions(tokenizer, 16).waiting(pictures, np.random.default_rng(seed))
        awaited: Watch | None = None
        said = _said(sheet.ids.tolist(), tokenizer)
        assert len(said) == len(pictures)
        for unit, (text, now) in enumerate(zip(said, pictures, strict=True)):
            if awaited is not None:
                happened = awaited.happens(pictures[unit - 1], now)
                assert text == (awaited.alert if happened else "")
                told, silent = told + happened, silent + (not happened)
                awaited = None if happened else awaited
            elif text:
                awaited = next(one for one in WATCHES if one.promise == text)
        decided = np.flatnonzero(sheet.decides)
        assert len(decided) == len(pictures)
        control = tokenizer.control
        assert set(sheet.labels[decided].tolist()) <= {control.listen, control.speak}
    assert 0.3 < told / (told + silent) < 0.7
    assert told > 50


def _said(ids: list[int], tokenizer: Tokenizer) -> list[str]:
    """In each unit; "" where the robot listened."""
    control = tokenizer.control
    said = []
    for unit in _units(ids, tokenizer):
        words: list[int] = []
        if control.speak in unit:
            words = unit[unit.index(control.speak) + 1 : unit.index(control.turn_eos)]
        said.append(tokenizer.decode(words).strip())
    return said


def _units(ids: list[int], tokenizer: Tokenizer) -> list[list[int]]:
    begins = [at for at, token in enumerate(ids) if token == tokenizer.control.unit]
    return [ids[a:b] for a, b in zip(begins, [*begins[1:], len(ids)], strict=True)]


def test_talk_that_is_for_somebody_else_is_listened_to(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = tokenizer.control
    talk = "they sold two tickets"
    monkeypatch.setattr(written, "chatter", lambda rng: talk)
    talked = 0
    for seed in range(30):
        story = Questions(tokenizer, 16).story(still_set(THINGS), 8, np.random.default_rng(seed))
        for unit in _units(story.ids.tolist(), tokenizer):
            if talk in tokenizer.decode(unit):
                assert control.listen in unit and control.speak not in unit
                talked += 1
    assert talked > 10


def test_a_world_in_a_hurry_is_the_same_world() -> None:
    stage = StageSet(Scene((Life(THINGS[0], enters_s=4.0, turns=((8.0, "green"),)),)))
    [life] = hastened(stage, 2.0).scene.lives
    assert (life.enters_s, life.leaves_s, life.turns) == (2.0, float("inf"), ((4.0, "green"),))


def test_stories_ask_often_for_what_changed() -> None:
    stage = still_set(THINGS)

    def asked(share: float) -> int:
        asking, memory = Asking(np.random.default_rng(0), stage, False, changed=share), Memory()
        memory.changed = "The red cup appeared."
        return sum(asking.ask(memory, 0.0)[0] == "changed" for _ in range(200))

    assert asked(1.0) == 200
    assert asked(0.35) > asked(0.0) + 40

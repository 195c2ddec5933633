"""What people said and photographs: which phrases are taken, and when an answer is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from minicpmo_ros.errors import InputError
from minicpmo_ros.nano.answers import UNKNOWN
from minicpmo_ros.nano.living import Turn
from minicpmo_ros.nano.recorded import (
    QUESTIONS,
    measure_photographs,
    measure_phrases,
    photographs,
    phrases,
)

LIST = """\
; what a person said
hello: Hello.
thanks: Thank you!
beep: (beep)
okay: Okay.
ask: How far is it?
order: Please hold the line.
calling: Thank you for calling.
door: The door is open.
missing: Goodbye.
"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    for number, name in enumerate(("hello", "thanks", "okay", "ask", "order", "calling", "door")):
        t = np.arange(4_000 + 1_000 * number) / 8_000
        soundfile.write(tmp_path / f"{name}.wav", 0.2 * np.sin(2 * np.pi * 300 * t), 8_000)
    (tmp_path / "list.txt").write_text(LIST)
    return tmp_path / "list.txt"


def test_only_phrases_are_taken_of_which_it_is_known_what_is_right(listed: Path) -> None:
    found = {one.file.stem: one.answer for one in phrases(listed, listed.parent)}
    assert found == {"hello": "Hello!", "thanks": "You are welcome.", "door": ""}


def test_a_list_of_nothing_is_refused(listed: Path) -> None:
    with pytest.raises(InputError, match=r"lines like 'hello: Hello\.'"):
        phrases(listed, listed.parent / "elsewhere")
    with pytest.raises(InputError, match="cannot be read"):
        phrases(listed.parent / "none.txt", listed.parent)
    with pytest.raises(InputError, match="holds no pictures"):
        photographs(listed.parent)


@pytest.mark.parametrize(
    "text, late, right",
    [
        ("Hello!", 0, True),
        ("Hello!", 1, True),
        ("Hello!", 2, False),
        ("You are welcome.", 0, False),
    ],
)
def test_an_answer_is_right_in_its_unit_or_the_next(
    listed: Path, text: str, late: int, right: bool
) -> None:
    """Three seconds follow on what is said: an answer is due in the third or fourth unit from the
    end, as the end of what was said falls."""
    some = [one for one in phrases(listed, listed.parent) if one.answer == "Hello!"]

    def live(sound, pixels):
        assert pixels is None and len(sound) % 16_000 == 0
        loud = np.flatnonzero(np.abs(sound) > 0.01)
        assert loud[0] >= 16_000 and 0.45 < (loud[-1] - loud[0]) / 16_000 < 0.55
        due = int(np.ceil(loud[-1] / 16_000 + 0.3)) - 1
        return [Turn(due + late, text, 1, True)]

    found = measure_phrases(live, some, 0, lambda share: None)
    assert found.answers == [right] and len(found.wrong) == (not right)
    assert [one.name for one in found.figures()] == ["nano.answers_human"]


def test_to_what_is_for_others_any_word_is_one_too_many(listed: Path) -> None:
    (door,) = (one for one in phrases(listed, listed.parent) if not one.answer)
    silent = measure_phrases(lambda *given: [], [door], 0, lambda share: None)
    assert [one.value for one in silent.figures()] == [0.0]
    speaks = measure_phrases(
        lambda *given: [Turn(2, "Hello!", 1, True)], [door], 0, lambda share: None
    )
    (figure,) = speaks.figures()
    assert (figure.name, figure.value, figure.met) == ("nano.false_speech_human", 1.0, False)
    assert "The door is open." in speaks.wrong[0]


def test_photographs_are_shown_upright_and_asked_about(tmp_path: Path) -> None:
    tall = np.zeros((300, 200, 3), np.uint8)
    tall[:150] = 255
    Image.fromarray(tall).save(tmp_path / "tall.png")
    seen = []

    def live(sound, pixels):
        seen.append(pixels)
        due = int(np.ceil(np.flatnonzero(np.abs(sound) > 0.01)[-1] / 16_000 + 0.3)) - 1
        return [Turn(due, UNKNOWN if len(seen) > 1 else "Nothing.", 1, True)]

    found = measure_photographs(live, photographs(tmp_path), 0, lambda share: None)
    assert found.photographs == [False] + [True] * (len(QUESTIONS) - 1)
    assert seen[0].shape == (240, 160, 3) and seen[0][0, 0, 0] == 255 and seen[0][-1, 0, 0] == 0

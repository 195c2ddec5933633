"""Text in pieces becomes speech in whole words, and all of it."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.brains.local.words import SpokenText
from tests.brains.local.robot import Tones

TEXT = st.text(
    st.one_of(st.sampled_from(" ,.!\n，。你好世界いろは한a'é7😀"), st.characters(codec="utf-8")),  # noqa: RUF001
    max_size=40,
)
WORD_IN_TWO = re.compile(r"[A-Za-z0-9é]{2}")


def pushed(text: str, places: list[int]) -> tuple[list[str], list[str]]:
    """The pieces of a text cut at these places, and what was spoken of them."""
    cuts = sorted({place % (len(text) + 1) for place in places})
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    voice = Tones()
    spoken = SpokenText(voice)
    for number, piece in enumerate(pieces):
        spoken.push(piece, last=number == len(pieces) - 1)
    return pieces, voice.said


@given(TEXT, st.lists(st.integers(0, 1000), max_size=8))
def test_however_a_text_is_cut_all_of_it_that_can_be_pronounced_is_spoken(text, places):
    _, said = pushed(text, places)
    whole = "".join(said)
    assert text.startswith(whole)
    assert not re.search(r"\w", text[len(whole) :])
    assert all(re.search(r"\w", one) for one in said)


@given(TEXT, st.lists(st.integers(0, 1000), max_size=8))
def test_no_word_is_spoken_in_two(text, places):
    _, said = pushed(text, places)
    for before, after in itertools.pairwise(said):
        assert not WORD_IN_TWO.fullmatch(before[-1] + after[0])


def test_a_word_waits_for_its_end_and_no_longer():
    voice = Tones()
    spoken = SpokenText(voice)
    for piece in ("Hel", "lo the", "re. ", "Bye"):
        spoken.push(piece, last=False)
    assert voice.said == ["Hello ", "there. "]
    spoken.push("", last=True)
    assert voice.said[2:] == ["Bye"]


@pytest.mark.parametrize("text", ["你好", "いろは", "カナ", "你好，", "好。"])  # noqa: RUF001
def test_chinese_and_japanese_have_no_spaces_to_wait_for(text):
    voice = Tones()
    SpokenText(voice).push(text, last=False)
    assert voice.said == [text]


def test_what_cannot_be_pronounced_waits_for_a_word_and_alone_is_never_spoken():
    voice = Tones()
    spoken = SpokenText(voice)
    assert spoken.push("... ", last=False) == ((), "")
    assert voice.said == []
    spoken.push("so ", last=False)
    assert voice.said == ["... so "]
    assert spoken.push(" !? ", last=True) == ((), "")
    assert voice.said == ["... so "]


def test_nothing_of_a_turn_that_was_cut_is_said_in_the_next():
    voice = Tones()
    spoken = SpokenText(voice)
    spoken.push("I was abou", last=False)
    spoken.drop()
    spoken.push("Yes?", last=True)
    assert "".join(voice.said) == "I was Yes?"


def test_nothing_of_a_turn_that_ended_is_left_for_the_next():
    voice = Tones()
    spoken = SpokenText(voice)
    spoken.push("bye !?", last=True)
    spoken.push("hello ", last=False)
    assert voice.said == ["bye !?", "hello "]


def test_without_a_voice_the_reason_is_given_with_words_only():
    spoken = SpokenText(None)
    assert spoken.push("wor", last=False) == ((), "")
    assert spoken.push("d ", last=False) == ((), "not spoken: there is no speech synthesiser")

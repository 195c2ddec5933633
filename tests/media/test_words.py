"""Which words have been heard."""
# ruff: noqa: RUF001 - Chinese has commas of its own

import pytest

from minicpmo_ros.media.words import SpokenText, even_marks, join
from minicpmo_ros.messages import WordMark


def marks(*words: str, each: int = 100) -> tuple[WordMark, ...]:
    return tuple(WordMark(word, i * each, (i + 1) * each) for i, word in enumerate(words))


@pytest.mark.parametrize(
    ("samples", "heard"),
    [(0, ""), (99, ""), (100, "Well,"), (199, "Well,"), (200, "Well, I"), (300, "Well, I am.")],
)
def test_a_word_is_heard_at_its_end_with_its_punctuation(samples: int, heard: str) -> None:
    assert SpokenText("Well, I am.", marks("Well", "I", "am"), 300).heard(samples) == heard


def test_without_marks_the_words_share_the_samples_evenly() -> None:
    text = SpokenText("one two three", (), 301)
    assert [text.heard(samples) for samples in (99, 100, 200, 201, 300, 301)] == [
        "", "one", "one", "one two", "one two", "one two three",
    ]  # fmt: skip


def test_in_a_script_without_spaces_every_character_is_a_word() -> None:
    text = SpokenText("你好，世界。", (), 400)
    assert [text.heard(samples) for samples in (100, 200, 300, 400)] == [
        "你", "你好，", "你好，世", "你好，世界。",
    ]  # fmt: skip


def test_words_that_are_not_in_the_text_are_taken_as_they_are() -> None:
    text = SpokenText("12 km", marks("twelve", "kilometres"), 200)
    assert text.heard(100) == "twelve"
    assert text.whole == "twelve kilometres"


def test_a_word_that_comes_twice_is_found_twice() -> None:
    assert SpokenText("no no no", marks("no", "no", "no"), 300).heard(200) == "no no"


def test_a_mark_beyond_the_samples_is_heard_with_the_last_of_them() -> None:
    assert SpokenText("late", (WordMark("late", 0, 999),), 100).heard(100) == "late"


def test_no_text_has_no_words() -> None:
    assert even_marks("  ", 100) == ()
    assert SpokenText("", (), 100).heard(100) == ""


@pytest.mark.parametrize(
    ("before", "after", "joined"),
    [
        ("Hello", "there", "Hello there"),
        ("Hello ", "there", "Hello there"),
        ("Hello", " there", "Hello there"),
        ("你好", "世界", "你好世界"),
        ("", "there", "there"),
    ],
)
def test_texts_are_joined_as_their_script_wants(before: str, after: str, joined: str) -> None:
    assert join(before, after) == joined

"""Where words lie in the sound of their units' codes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.duplex.timed_words import TimedWords
from minicpmo_ros.messages import WordMark

SECOND = 24_000


def said(*units: str, samples: int = SECOND) -> list[WordMark]:
    """All words of a turn with these texts, a second each, counted from its first sample."""
    words = TimedWords()
    for number, text in enumerate(units):
        words.begin(text, number * samples, samples)
    return list(words.take(0, len(units) * samples, last=True))


def texts(marks) -> list[str]:
    return [mark.text for mark in marks]


def test_words_share_the_sound_of_their_unit_by_their_length():
    short, long = said("no", " something", samples=1000), said("no something", samples=1000)
    assert short == [WordMark("no", 0, 1000), WordMark("something", 1000, 2000)]
    assert long == [WordMark("no", 0, 182), WordMark("something", 182, 1000)]


def test_a_number_takes_as_long_as_its_digits_do_and_punctuation_is_a_pause():
    (number, word) = said("12 marvellous", samples=1800)
    assert number.end_sample == word.start_sample == 800
    (yes, no) = said("Yes. No", samples=900)
    assert (yes.end_sample, no.start_sample) == (300, 700)


def test_in_scripts_without_spaces_each_character_is_a_word():
    assert texts(said("你好\uff0c", "世界\u3002")) == ["你", "好\uff0c", "世", "界\u3002"]


def test_a_word_goes_on_over_the_border_of_units():
    words = TimedWords()
    words.begin("Hello the", 0, SECOND)
    assert texts(words.take(0, SECOND)) == ["Hello"]
    words.begin("re you", SECOND, SECOND)
    (there, you) = words.take(SECOND, 2 * SECOND, last=True)
    # It began in the second before this one.
    assert there == WordMark("there", 0, 2 * SECOND // 5)
    assert you.end_sample == SECOND


def test_behind_a_space_or_the_end_of_a_sentence_nothing_goes_on():
    for first, second in (("Hello ", "you"), ("Hello", " you"), ("Hello.", "You")):
        assert len(texts(said(first, second))) == 2
    assert texts(said("It is 3.", "5 m")) == ["It", "is", "3.5", "m"]
    assert texts(said("don", "\u2019t")) == ["don\u2019t"]


def test_a_word_is_taken_with_the_piece_that_ends_it():
    words = TimedWords()
    words.begin("aaaa bbbb", 0, 1000)
    assert words.take(0, 499) == ()
    assert words.take(499, 500) == (WordMark("aaaa", 0, 1),)
    assert words.take(500, 1000) == ()  # it may be half a word
    assert words.take(1000, 1000, last=True) == (WordMark("bbbb", 0, 0),)


def test_a_unit_that_came_to_be_shorter_moves_what_was_not_taken():
    words = TimedWords()
    words.begin("aa bb cc dd", 0, 1000)
    assert texts(words.take(0, 250)) == ["aa"]
    words.settle(500)
    marks = words.take(250, 500, last=True)
    assert marks == (WordMark("bb", 0, 0), WordMark("cc", 0, 125), WordMark("dd", 125, 250))


def test_words_of_a_unit_without_sound_are_heard_with_the_next():
    words = TimedWords()
    words.begin("aa bb ", 0, SECOND)
    words.settle(0)
    words.begin("cc ", 0, SECOND)
    assert words.take(0, 1) == (WordMark("aa", 0, 0), WordMark("bb", 0, 0))


TEXTS = st.lists(st.text("ab.,'1 \n你", max_size=12), min_size=1, max_size=5)


@given(TEXTS, st.lists(st.integers(0, 3000), max_size=8))
def test_however_it_is_cut_no_word_is_lost_and_all_are_in_order(units, cuts):
    words = TimedWords()
    end = 1000 * len(units)
    for number, text in enumerate(units):
        words.begin(text, 1000 * number, 1000)
    found: list[tuple[int, str]] = []
    borders = [0, *sorted(min(cut, end) for cut in cuts), end]
    for first, stop in pairwise(borders):
        for mark in words.take(first, stop, last=stop == end):
            assert 0 <= mark.start_sample <= mark.end_sample <= stop - first
            found.append((first + mark.end_sample, mark.text))
    assert "".join(text for _, text in found) == "".join("".join(units).split())
    assert [at for at, _ in found] == sorted(at for at, _ in found)

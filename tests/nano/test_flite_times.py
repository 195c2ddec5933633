"""Times of words and phonemes, from the segments that flite tells."""

from __future__ import annotations

from minicpmo_ros.nano import flite_times
from minicpmo_ros.nano.espeak_phonemes import PHONEMES

TOLD = "pau:0.10 t:0.20 eh:0.30 l:0.40 pau:0.60 m:0.70 iy:0.80 dh:0.85 ax:0.90 pau:1.00 \n"
ALONE = {"tell": ["t", "eh", "l"], "me": ["m", "iy"], "the": ["dh", "ax"]}


def test_segments_are_read() -> None:
    segments = flite_times.segments_of(TOLD)
    assert segments[:2] == [("pau", 0.1), ("t", 0.2)]
    assert len(segments) == 10


def test_phonemes_are_classes_of_espeak_with_their_times() -> None:
    found = flite_times.phonemes(flite_times.segments_of(TOLD))
    assert [PHONEMES[index] for index, _, _ in found] == ["t", "E", "l", "m", "i:", "D", "@"]
    assert found[0][1:] == (0.1, 0.2)
    assert found[3][1:] == (0.6, 0.7)  # behind a pause


def test_every_class_is_one_of_espeak() -> None:
    assert set(flite_times._CLASSES.values()) <= set(PHONEMES)


def test_words_begin_and_end_with_their_segments() -> None:
    segments = flite_times.segments_of(TOLD)
    found = flite_times.words("tell me the", segments, ALONE.__getitem__)
    assert found == [("tell", 0.1, 0.4), ("me", 0.6, 0.8), ("the", 0.8, 0.9)]


def test_words_are_found_where_a_sentence_sounds_otherwise_than_its_words() -> None:
    alone = ALONE | {"tell": ["t", "ah", "l", "l"], "the": ["dh", "iy"]}
    segments = flite_times.segments_of(TOLD)
    found = flite_times.words("tell me the", segments, alone.__getitem__)
    assert found == [("tell", 0.1, 0.4), ("me", 0.6, 0.8), ("the", 0.8, 0.9)]


def test_nothing_heard_has_no_words() -> None:
    assert flite_times.words("tell", [("pau", 0.3)], ALONE.__getitem__) == []

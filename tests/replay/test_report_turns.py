"""Turns of the report: words of speech whose synthesiser gave no marks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.replay.report.turns import guessed_marks


@given(st.text(max_size=60), st.integers(0, 48_000))
def test_every_word_has_a_place_of_its_own_in_the_sound(text: str, samples: int) -> None:
    marks = guessed_marks(text, samples)
    assert [mark.text for mark in marks] == text.split()
    edges = [edge for mark in marks for edge in (mark.start_sample, mark.end_sample)]
    assert edges == sorted(edges)
    assert not edges or (edges[0] == 0 and edges[-1] == samples)

"""Pictures that come before the unit closes: the same as if they had come with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.duplex.config import WindowConfig
from minicpmo_ros.duplex.pictures import Gaze, Shown
from minicpmo_ros.duplex.timing import Stages
from tests.duplex.talking import (
    PICTURE_ROWS,
    PREFIX,
    PROMPT_ROWS,
    SUFFIX,
    Talk,
    Watched,
    picture,
    same,
)


def shown(keys: Sequence[int]) -> list[Shown]:
    """Pictures of these keys; every third is also cut into cells."""
    return [picture(key, cells=4 if key % 3 == 2 else 1) for key in keys]


def assert_equal(talk: Talk, other: Talk) -> None:
    assert talk.state() == other.state()
    np.testing.assert_array_equal(talk.keys(), other.keys())


pictures = st.lists(st.integers(0, 4), max_size=3)
one_unit = st.tuples(st.lists(pictures, max_size=4), pictures, st.booleans())


@settings(max_examples=30)
@given(st.lists(one_unit, min_size=1, max_size=3))
def test_whatever_came_early_the_unit_is_as_if_it_came_at_its_end(network, tokenizer, units):
    watched = Watched(network)
    talk, other = Talk(watched.network, tokenizer), Talk(network, tokenizer)
    for early, final, deaf in units:
        watched.looks.clear()
        deaf = deaf and bool(final)
        for keys in early:
            talk.conversation.show(shown(keys))
        outcome = talk.hear("speak", "a", "turn_eos", "chunk_eos", shown=shown(final), deaf=deaf)
        expected = other.hear("speak", "a", "turn_eos", "chunk_eos", shown=shown(final), deaf=deaf)
        assert same(outcome, expected)
        assert_equal(talk, other)
        # Each picture is encoded once.
        keys = {key for some in (*early, final) for key in some}
        assert len(watched.looks) == len(keys)


def test_pictures_that_came_early_are_not_read_again(network, tokenizer):
    talk = Talk(network, tokenizer)
    talk.conversation.show(shown([0]))
    assert talk.rows == PROMPT_ROWS + 1 + PICTURE_ROWS
    before = talk.conversation.context.keys(1 + PICTURE_ROWS)
    # Something that only those who read the picture again would repair.
    talk.conversation.context.cache.k[:, :, PROMPT_ROWS + 3] += 1
    talk.hear("listen", shown=shown([0]))
    found = talk.keys()[:, :, PROMPT_ROWS : PROMPT_ROWS + 1 + PICTURE_ROWS]
    assert np.flatnonzero((found != before).any(axis=(0, 1, 3))).tolist() == [3]


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("final", [[0], [0, 1], [1]])
def test_a_picture_taken_back_is_not_decided_upon(network, tokenizer, final, deaf):
    talk, other = Talk(network, tokenizer), Talk(network, tokenizer)
    talk.conversation.show(shown([0, 1]))
    found = talk.unit("listen", shown=shown(final), deaf=deaf)
    assert same(found, other.unit("listen", shown=shown(final), deaf=deaf))
    assert_equal(talk, other)


def test_pictures_alone_are_decided_upon_behind_the_last_of_them(network, tokenizer):
    outcome = Talk(network, tokenizer).hear("listen", shown=shown([0, 1]), deaf=True)
    gaze = Gaze(network, tokenizer.control, max_slices=1, max_pictures=2)
    gaze.look(shown([0, 1]), Stages())
    context = network.context(200)
    unit = [[tokenizer.control.unit], *gaze.parts(0), *gaze.parts(1)]
    powers = np.exp(context.logits(context.read(PREFIX, SUFFIX, *unit)))
    expected = powers[tokenizer.control.listen] / powers.sum()
    assert outcome.p_listen == pytest.approx(expected, rel=1e-4)


def test_slices_stand_behind_their_picture_between_their_own_signs(network, tokenizer):
    control = tokenizer.control
    gaze = Gaze(network, control, max_slices=1, max_pictures=3)
    gaze.look([picture(0), picture(2, cells=4)], Stages())
    whole = [[control.image], 64, [control.image_end]]
    cell = [[control.slice], 64, [control.slice_end]]

    def signs(key: int) -> list:
        parts = gaze.parts(key)
        return [part if isinstance(part, list) else len(part) for part in parts]

    assert signs(0) == whole
    assert signs(2) == whole + 4 * cell


@settings(max_examples=15)
@given(
    st.sampled_from(["basic", "context"]),
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 12)),
        min_size=3,
        max_size=7,
    ),
)
def test_also_when_old_units_must_go_to_make_room(network, tokenizer, mode, units):
    """Some pictures early, more at the unit's end, in a cache for four pictures."""
    window = WindowConfig(mode, 340, 340, max_units=100, previous_tokens=15)
    talk, other = (
        Talk(network, tokenizer, kv_capacity=340, window=window, characters_per_unit=100)
        for _ in range(2)
    )
    key = 0
    for early, more, words in units:
        tokens = ("speak", *["a"] * words, "chunk_eos")
        final = [picture(key + n) for n in range(early + more)]
        key += len(final)
        for count in range(early):
            talk.conversation.show(final[: count + 1])
        found, expected = (one.hear(*tokens, shown=final) for one in (talk, other))
        assert (found.fed, found.utterance.text) == (expected.fed, expected.utterance.text)
        assert talk.conversation.window.forgotten == other.conversation.window.forgotten
        assert talk.state() == other.state()
        # Keys that were turned twice and keys that were turned once differ in their last digits.
        keys = other.keys()
        np.testing.assert_allclose(talk.keys(), keys, atol=1e-5 * np.abs(keys).max())


def test_old_units_do_go_to_make_room(network, tokenizer):
    window = WindowConfig("basic", 300, 300)
    talk = Talk(network, tokenizer, kv_capacity=300, window=window)
    for key in range(3):
        talk.unit("listen", shown=[picture(key)])
    talk.conversation.show([picture(3)])
    assert talk.conversation.window.forgotten == 1
    assert talk.rows == PROMPT_ROWS + 2 * (PICTURE_ROWS + 13) + 1 + PICTURE_ROWS

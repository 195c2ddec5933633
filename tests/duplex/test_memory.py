"""What a conversation remembers of a turn that was cut off."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from minicpmo_ros.duplex import memory
from minicpmo_ros.duplex.config import WindowConfig
from minicpmo_ros.duplex.outcome import Outcome
from minicpmo_ros.errors import NumericsError
from tests.duplex.talking import LISTENING_ROWS, Talk, Watched, picture


@pytest.fixture
def talk_with(network, tokenizer):
    return partial(Talk, network, tokenizer)


def equal(talk: Talk, other: Talk) -> bool:
    """Whether both have read the same, and whatever they read and draw next is the same."""
    assert talk.state()[:4] == other.state()[:4]
    np.testing.assert_allclose(talk.keys(), other.keys(), atol=1e-5)
    return True


def alike(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes are equal, but for the last digits of chances: what is read again is
    read in other passes."""
    assert one.p_listen == pytest.approx(other.p_listen, rel=1e-3)
    return (one.fed, one.utterance.text) == (other.fed, other.utterance.text)


def test_only_the_words_that_were_heard_are_remembered(talk_with):
    talk, other = talk_with(), talk_with()
    talk.unit("speak", *"ab cd", "chunk_eos")
    talk.unit(*" ef gh", "chunk_eos")
    talk.conversation.remember("ab cd ef", 2)
    other.unit("speak", *"ab cd", "chunk_eos")
    other.unit(*" ef", "chunk_eos")
    assert equal(talk, other)
    assert talk.conversation.turn_open
    # The turn ends as the model knows it.
    other.conversation.interrupt()
    assert alike(talk.unit(), other.unit())
    assert talk.unit("listen").fed == talk.ids("listen")


def test_units_behind_the_last_word_are_as_if_it_had_listened_there(talk_with):
    talk, other = talk_with(), talk_with()
    talk.unit("listen", shown=[picture(1)])
    talk.unit("speak", *"ab cd", "chunk_eos")
    talk.unit(*" ef", "chunk_eos", shown=[picture(2), picture(3)])
    talk.unit(*" gh", "turn_eos", "chunk_eos")
    talk.unit("listen")
    talk.conversation.remember("ab", 4)
    other.unit("listen", shown=[picture(1)])
    other.unit("speak", *"ab", "chunk_eos")
    other.conversation.interrupt()
    other.unit(shown=[picture(2), picture(3)])
    other.unit("listen")
    other.unit("listen")
    assert equal(talk, other)
    assert not talk.conversation.turn_open
    assert alike(talk.unit("speak", "i", "chunk_eos"), other.unit("speak", "i", "chunk_eos"))


def test_a_turn_of_which_nothing_was_heard_was_never_begun(talk_with):
    talk, other = talk_with(), talk_with()
    talk.unit("listen")
    talk.unit("speak", *"ab", "chunk_eos")
    talk.conversation.remember("", 2)
    other.unit("listen")
    other.unit("listen")
    assert equal(talk, other)
    assert not talk.conversation.turn_open
    assert talk.unit().fed == talk.ids("listen")  # somebody has cut in: it does not begin at once


def test_a_turn_that_was_heard_to_its_end_stays_as_it_is(talk_with, tokenizer):
    talk = talk_with()
    talk.unit("speak", *"ab ", "chunk_eos")
    talk.unit(*"cd", tokenizer.encode("𝄞")[0], "turn_eos", "chunk_eos")
    before, keys = talk.state(), talk.keys()
    talk.conversation.remember("ab cd\ufffd", 2)
    assert talk.state() == before
    np.testing.assert_array_equal(talk.keys(), keys)
    assert not talk.unit("speak", "i", "chunk_eos").listens


def test_a_turn_that_was_never_spoken_is_forgotten_and_the_one_before_kept(talk_with):
    talk, other = talk_with(), talk_with()
    for one in (talk, other):
        one.unit("speak", *"ab", "turn_eos", "chunk_eos")
    talk.unit("speak", *"ab", "turn_eos", "chunk_eos")
    talk.conversation.remember("ab", 1)
    other.unit("listen")
    assert equal(talk, other)


def test_turns_before_the_last_cut_are_not_touched_again(talk_with):
    talk = talk_with()
    talk.unit("speak", *"ab", "turn_eos", "chunk_eos")
    talk.conversation.remember("ab", 1)
    before = talk.state()
    talk.conversation.remember("", -1)
    assert talk.state() == before


def test_words_that_never_became_speech_are_remembered_with_those_behind_them(talk_with):
    talk, other = talk_with(), talk_with()
    talk.unit("speak", *"ab xy cd ef", "chunk_eos")
    talk.conversation.remember("ab cd", 1)
    other.unit("speak", *"ab xy cd", "chunk_eos")
    assert equal(talk, other)


def test_characters_of_several_tokens_are_kept_or_forgotten_whole(talk_with, tokenizer):
    half, *rest = tokenizer.encode("𝄞")
    talk, other = talk_with(), talk_with()
    talk.unit("speak", *"ab ", half, *rest, "chunk_eos")
    talk.conversation.remember("ab", 1)
    other.unit("speak", *"ab", "chunk_eos")
    assert equal(talk, other)


def test_pictures_of_the_unit_that_is_open_are_read_again_but_not_looked_at_again(
    network, tokenizer
):
    watched = Watched(network)
    talk, other = Talk(watched.network, tokenizer), Talk(network, tokenizer)
    talk.unit("speak", *"ab cd", "chunk_eos")
    talk.conversation.show([picture(1)])
    talk.conversation.remember("ab", 1)
    other.unit("speak", *"ab", "chunk_eos")
    for one in (talk, other):
        one.conversation.interrupt()
    assert alike(talk.unit(shown=[picture(1)]), other.unit(shown=[picture(1)]))
    assert equal(talk, other)
    assert watched.looks == [1]


@pytest.mark.parametrize("how", [{"reference_compat": True}, {"forgets_unheard": False}])
def test_the_reference_remembers_all_that_was_said(talk_with, how):
    talk = talk_with(**how)
    talk.unit("speak", *"ab cd", "chunk_eos")
    before = talk.state()
    talk.conversation.remember("ab", 1)
    assert talk.state() == before


def test_what_is_too_long_ago_to_be_read_again_stays(talk_with, monkeypatch):
    monkeypatch.setattr(memory, "READABLE", 2)
    talk = talk_with()
    talk.unit("speak", *"ab", "chunk_eos")
    for words in ("cd", "ef", "gh"):
        talk.unit(*f" {words}", "chunk_eos")
    rows = [unit.rows for unit in talk.conversation.window.units]
    talk.conversation.remember("ab", 4)
    kept = [unit.rows for unit in talk.conversation.window.units]
    assert kept == [*rows[:2], LISTENING_ROWS + 1, LISTENING_ROWS]


def test_units_that_the_window_has_forgotten_are_no_trouble(talk_with):
    talk = talk_with(window=WindowConfig("context", max_units=2))
    talk.unit("speak", *"ab", "chunk_eos")
    for words in ("cd", "ef", "gh"):
        talk.unit(*f" {words}", "chunk_eos")
    talk.conversation.remember("ab", 4)
    assert [unit.rows for unit in talk.conversation.window.units] == [
        LISTENING_ROWS + 1,
        LISTENING_ROWS,
    ]
    assert talk.unit().listens


def test_units_that_cannot_be_read_again_are_forgotten(talk_with):
    talk, other = talk_with(), talk_with()
    for one in (talk, other):
        one.unit("listen")
    talk.unit("speak", *"ab cd", "chunk_eos")
    talk.unit(*" ef", "chunk_eos")
    read = talk.conversation.context.read

    def spoilt(*parts, at=None):
        if len(parts[0]) == 1:  # `<unit>`: a unit is read again
            raise NumericsError("NaN")
        return read(*parts, at=at)

    talk.conversation.context.read = spoilt
    with pytest.raises(NumericsError):
        talk.conversation.remember("ab", 2)
    talk.conversation.context.read = read
    assert equal(talk, other)
    assert not talk.conversation.turn_open
    talk.heard = other.heard = 7
    assert talk.unit().listens
    assert not talk.unit("speak", "i", "chunk_eos").listens

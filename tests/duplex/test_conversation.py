"""What a unit comes to for the tokens drawn in it: listening, turns, text, and their limits."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from minicpmo_ros.duplex.config import WindowConfig
from minicpmo_ros.errors import InputError
from minicpmo_ros.model.tokenizer import Tokenizer
from tests.duplex.talking import (
    LISTENING_ROWS,
    PICTURE_ROWS,
    PROMPT_ROWS,
    Talk,
    Told,
    Watched,
    picture,
    same,
)


@pytest.fixture
def talk_with(network, tokenizer):
    """Makes conversations."""
    return partial(Talk, network, tokenizer)


def test_the_first_units_only_listen(talk_with):
    talk = talk_with(forced_listens=2)
    for _ in range(2):
        outcome = talk.unit()
        assert outcome.listens
        assert outcome.fed == talk.ids("listen")
    assert not talk.unit("speak", "a", "chunk_eos").listens


def test_units_cost_as_many_rows_as_they_have_tokens(talk_with):
    talk = talk_with()
    assert talk.rows == PROMPT_ROWS
    talk.unit("listen")
    assert talk.rows == PROMPT_ROWS + LISTENING_ROWS
    talk.unit("listen", shown=[picture(1), picture(2)])
    assert talk.rows == PROMPT_ROWS + 2 * LISTENING_ROWS + 2 * PICTURE_ROWS
    talk.unit("speak", "a", "b", "chunk_eos")
    assert talk.rows == PROMPT_ROWS + 3 * LISTENING_ROWS + 2 * PICTURE_ROWS + 3
    rows = [unit.rows for unit in talk.conversation.window.units]
    assert rows == [LISTENING_ROWS, LISTENING_ROWS + 2 * PICTURE_ROWS, LISTENING_ROWS + 3]


def test_the_chances_are_those_before_any_rule(talk_with):
    talk = talk_with()
    outcome = talk.unit("listen")
    powers = np.exp(talk.told.logits[0], dtype=np.float64)
    listen, speak = powers[[*talk.ids("listen", "speak")]] / powers.sum()
    assert (outcome.p_listen, outcome.p_speak) == pytest.approx((listen, speak), rel=1e-5)


def test_what_is_said_stands_between_speak_and_the_end_of_the_chunk(talk_with):
    talk = talk_with()
    outcome = talk.unit("speak", "h", "i", "chunk_eos")
    assert not outcome.listens
    assert outcome.utterance.text == "hi"
    assert outcome.ids == talk.ids("h", "i")
    assert outcome.sampled == outcome.fed == talk.ids("speak", "h", "i", "chunk_eos")
    assert not outcome.end_of_turn
    assert talk.conversation.turn_open
    assert talk.conversation.window.units[-1].said == talk.ids("h", "i")


def test_a_turn_that_ends_can_be_followed_by_listening(talk_with):
    talk = talk_with()
    outcome = talk.unit("speak", "h", "turn_eos", "chunk_eos")
    assert outcome.end_of_turn
    assert not talk.conversation.turn_open
    assert outcome.ids == talk.ids("h", "turn_eos")
    assert talk.conversation.window.units[-1].said == talk.ids("h")
    assert talk.unit("listen").listens


@pytest.mark.parametrize("terminator", ["chunk_eos", "chunk_tts_eos"])
def test_chunks_end_with_either_sign(talk_with, terminator):
    talk = talk_with()
    assert talk.unit("speak", "h", terminator).fed == talk.ids("speak", "h", terminator)


def test_nobody_listens_in_the_middle_of_a_turn(talk_with):
    talk = talk_with()
    talk.unit("speak", "h", "chunk_eos")
    outcome = talk.unit("listen", "i", "listen", "chunk_eos")
    assert outcome.sampled == talk.ids("listen", "i", "listen", "chunk_eos")
    assert outcome.fed == talk.ids("tts_bos", "i", "tts_bos", "chunk_eos")
    assert not outcome.listens
    assert outcome.utterance.text == "i"
    assert talk.conversation.turn_open


def test_a_word_where_a_control_token_is_expected_is_said(talk_with):
    outcome = talk_with().unit("h", "i", "chunk_eos")
    assert outcome.utterance.text == "hi"
    lost = talk_with(reference_compat=True).unit("h", "i", "chunk_eos")
    assert lost.utterance.text == "i"
    assert lost.fed == outcome.fed


@pytest.mark.parametrize("compat, said", [(False, "h think"), (True, "h turn_bos think")])
def test_text_is_remembered_as_said(network, own_checkpoint, compat, said):
    """The reference remembers what the checkpoint does not declare special, too."""
    file = own_checkpoint / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"additional_special_tokens": ["<|speak|>"]}))
    talk = Talk(network, Tokenizer(own_checkpoint), reference_compat=compat)
    tokens = ("speak", "h", "turn_bos", "think", "speak", "turn_eos", "chunk_eos")
    assert talk.unit(*tokens).utterance.text == "h<think>"
    assert talk.conversation.window.units[-1].said == talk.ids(*said.split())


@pytest.mark.parametrize("compat, written", [(False, ""), (True, "\n\nprevious: ")])
def test_where_nothing_may_be_remembered_the_reference_says_so(talk_with, compat, written):
    window = WindowConfig("context", max_units=1, previous_tokens=0)
    talk = talk_with(reference_compat=compat, window=window)
    for _ in range(2):
        talk.unit("speak", "h", "turn_eos", "chunk_eos")
    assert talk.tokenizer.decode(talk.conversation.window.previous) == written


def test_listening_after_the_end_of_a_turn_loses_nothing(talk_with):
    tokens = ("speak", "h", "turn_eos", "listen")
    talk = talk_with()
    outcome = talk.unit(*tokens)
    assert not outcome.listens
    assert outcome.end_of_turn
    assert outcome.utterance.text == "h"
    assert outcome.fed == talk.ids(*tokens)
    assert talk.conversation.window.units[-1].said == talk.ids("h")
    assert talk.unit("listen").listens


def test_in_the_reference_it_loses_the_end_of_the_turn(talk_with):
    talk = talk_with(reference_compat=True)
    outcome = talk.unit("speak", "h", "turn_eos", "listen")
    assert outcome.listens
    assert not outcome.end_of_turn
    assert outcome.utterance.text == ""
    assert outcome.ids == talk.ids("h", "turn_eos")
    assert talk.conversation.window.units[-1].said == ()


def test_nothing_but_the_end_of_the_unit_follows_the_end_of_a_turn(talk_with):
    talk = talk_with()
    outcome = talk.unit("speak", "h", "turn_eos", "i")
    assert outcome.fed == talk.ids("speak", "h", "turn_eos", "chunk_eos")
    assert outcome.utterance.text == "h"
    assert outcome.end_of_turn
    assert not talk.conversation.turn_open

    talk = talk_with(reference_compat=True)
    outcome = talk.unit("speak", "h", "turn_eos", "i", "chunk_eos")
    assert outcome.utterance.text == "hi"
    assert not outcome.end_of_turn
    assert talk.conversation.turn_open


def test_the_end_of_a_turn_may_come_first(talk_with):
    talk = talk_with()
    talk.unit("speak", "h", "chunk_eos")
    outcome = talk.unit("turn_eos", "listen")
    assert outcome.ids == talk.ids("turn_eos")
    assert outcome.end_of_turn
    assert outcome.utterance.text == ""
    assert talk.unit("listen").listens


@pytest.mark.parametrize("steps", [20, 5])
def test_the_last_step_of_a_unit_only_ends_it(talk_with, steps):
    talk = talk_with(tokens_per_unit=steps)
    words = ["a"] * (steps - 2)
    outcome = talk.unit("speak", *words)
    assert outcome.fed == talk.ids("speak", *words, "chunk_eos")
    assert talk.conversation.turn_open


def test_text_of_a_unit_stays_below_28_characters(talk_with):
    talk = talk_with(tokens_per_unit=40)
    outcome = talk.unit("speak", *["a"] * 28)
    assert outcome.utterance.text == "a" * 27
    assert outcome.fed == talk.ids("speak", *["a"] * 27, "chunk_eos")
    assert len(outcome.sampled) == 29
    # What was rejected is not said later either.
    assert talk.unit("speak", "b", "chunk_eos").utterance.text == "b"


def test_the_limit_counts_characters_and_not_control_tokens(talk_with):
    talk = talk_with(characters_per_unit=3)
    assert talk.unit("speak", "a", "b", "tts_bos", "turn_eos", "chunk_eos").end_of_turn


def test_a_word_too_long_opens_the_turn_again_only_in_the_reference(talk_with):
    talk = talk_with(characters_per_unit=2)
    assert talk.unit("speak", "a", "turn_eos", "b").end_of_turn
    assert talk.unit("listen").listens

    talk = talk_with(characters_per_unit=2, reference_compat=True)
    assert talk.unit("speak", "a", "turn_eos", "b").end_of_turn
    assert not talk.unit("listen", "chunk_eos").listens


@pytest.mark.parametrize("tokens, opens", [(("speak", "chunk_eos"), True), (("chunk_eos",), False)])
def test_a_unit_may_speak_without_a_word(talk_with, tokens, opens):
    talk = talk_with(speaks=True)
    outcome = talk.unit(*tokens)
    assert not outcome.listens
    assert outcome.ids == ()
    assert outcome.utterance.text == ""
    assert len(outcome.utterance.codes) <= 25
    assert talk.conversation.turn_open == opens


def test_characters_may_span_units(talk_with, tokenizer):
    first, *rest = tokenizer.encode("𝄞")
    assert rest
    talk = talk_with()
    assert talk.unit("speak", "a", first, "chunk_eos").utterance.text == "a"
    assert talk.unit("speak", *rest, "b", "chunk_eos").utterance.text == "𝄞b"
    # At the end of a turn nothing more can come of it.
    assert talk.unit("speak", "c", first, "turn_eos", "chunk_eos").utterance.text == "c\ufffd"
    assert talk.unit("speak", *rest, "chunk_eos").utterance.text != "𝄞"

    talk = talk_with(reference_compat=True)
    assert talk.unit("speak", "a", first, "chunk_eos").utterance.text == "a\ufffd"


@pytest.mark.parametrize("early", [False, True])
def test_pictures_alone_are_decided_upon(talk_with, early):
    talk = talk_with()
    if early:
        talk.conversation.show([picture(1)])
    outcome = talk.unit("listen", deaf=True, shown=[picture(1)])
    assert outcome.listens
    assert talk.rows == PROMPT_ROWS + PICTURE_ROWS + 3
    # The next second is the first that is heard.
    other = talk_with()
    other.unit("listen", deaf=True, shown=[picture(1)])
    other.conversation.ears.reset()
    talk.heard = other.heard = 0
    assert same(talk.unit("speak", "a", "chunk_eos"), other.unit("speak", "a", "chunk_eos"))


def test_a_unit_of_nothing_is_refused(talk_with):
    with pytest.raises(InputError, match="neither sound nor pictures"):
        talk_with().hear(deaf=True)


# -- being cut off ------------------------------------------------------------------------------


@pytest.fixture
def spoken(network, tokenizer):
    """A conversation with speech in the middle of a turn, half a character said, and its speech."""

    def make(**settings):
        watched = Watched(network)
        talk = Talk(watched.network, tokenizer, speaks=True, **settings)
        talk.unit("speak", "h", tokenizer.encode("𝄞")[0], "chunk_eos")
        (speech,) = watched.turns
        assert speech.length > 25
        return talk, speech

    return make


def cut_by_interrupt(talk):
    talk.conversation.interrupt()
    return talk.unit()


def cut_by_listening(talk):
    return talk.unit(listen=True)


@pytest.mark.parametrize("cut", [cut_by_interrupt, cut_by_listening])
def test_a_turn_cut_off_ends_and_its_unit_listens(spoken, tokenizer, cut):
    talk, speech = spoken()
    rows = talk.rows
    outcome = cut(talk)
    assert outcome.listens
    assert outcome.fed == talk.ids("turn_eos", "listen")
    assert (outcome.ids, outcome.sampled, outcome.utterance.text) == ((), (), "")
    assert talk.rows == rows + LISTENING_ROWS + 1
    assert not talk.conversation.turn_open
    assert speech.length == 0
    assert talk.unit("listen").listens
    assert talk.unit("speak", "i", "chunk_eos").utterance.text == "i"


def test_an_interruption_silences_at_once(spoken):
    talk, speech = spoken()
    talk.conversation.interrupt()
    assert speech.length == 0
    # Whoever interrupts twice is heard once.
    talk.conversation.interrupt()
    assert talk.unit().listens
    assert not talk.unit("speak", "i", "chunk_eos").listens


@pytest.mark.parametrize("cut", [cut_by_interrupt, cut_by_listening])
def test_in_the_reference_speech_goes_on_where_it_was_cut_off(spoken, cut):
    talk, speech = spoken(reference_compat=True)
    rows = speech.length
    cut(talk)
    assert speech.length == rows


def test_an_interruption_between_turns_changes_nothing(talk_with):
    talk, other = talk_with(), talk_with()
    for one in (talk, other):
        one.unit("speak", "h", "turn_eos", "chunk_eos")
    talk.conversation.interrupt()
    assert same(talk.unit("speak", "i", "chunk_eos"), other.unit("speak", "i", "chunk_eos"))


def test_made_to_listen_between_turns_it_listens(talk_with):
    talk = talk_with()
    outcome = talk.unit(listen=True)
    assert outcome.listens
    assert outcome.fed == talk.ids("listen")
    assert talk.rows == PROMPT_ROWS + LISTENING_ROWS


# -- when a unit is closed ----------------------------------------------------------------------


def test_results_come_before_the_unit_is_closed(talk_with):
    talk, other = talk_with(), talk_with()
    for tokens in (("listen",), ("speak", "h", "chunk_eos"), ("turn_eos", "listen")):
        assert same(talk.hear(*tokens), other.unit(*tokens))
        assert talk.rows == other.rows - 2
    talk.conversation.settle()
    talk.conversation.settle()
    assert talk.state() == other.state()
    np.testing.assert_array_equal(talk.keys(), other.keys())


def test_a_picture_closes_the_unit_before(talk_with):
    talk, other = talk_with(), talk_with()
    talk.hear("listen")
    talk.conversation.show([picture(1)])
    talk.unit("listen", shown=[picture(1)])
    other.unit("listen")
    other.unit("listen", shown=[picture(1)])
    assert talk.state() == other.state()
    np.testing.assert_array_equal(talk.keys(), other.keys())


def test_speech_does_not_change_what_is_said(network, tokenizer):
    one = Talk(network, tokenizer, drawn=True, speaks=True)
    other = Talk(network, tokenizer, drawn=True, speaks=False)
    for _ in range(3):
        assert one.unit().fed == other.unit().fed


def test_told_is_told_exactly(talk_with):
    """That these tests can fail: a token too many, one too few."""
    with pytest.raises(AssertionError, match="too many"):
        talk_with().unit("speak", "a")
    with pytest.raises(AssertionError, match="fewer"):
        talk_with().unit("speak", "a", "chunk_eos", "b")
    assert isinstance(talk_with().told, Told)

"""What is said, on its way to text and speech: long turns, and what goes wrong behind the text."""

from __future__ import annotations

import numpy as np
import pytest

from minicpmo_ros.duplex.vocoding import RATE_HZ
from tests.duplex.talking import Echo, Talk, Watched


@pytest.fixture
def speaker(network, tokenizer):
    """Makes conversations with speech and sound, and the context of their speech."""

    def make(capacity: int | None = None, **settings):
        watched = Watched(network, capacity)
        vocoder = settings.setdefault("vocoder", Echo())
        talk = Talk(watched.network, tokenizer, speaks=True, **settings)
        return talk, watched.turns[0], vocoder

    return make


def test_a_unit_says_a_second(speaker):
    talk, speech, _ = speaker()
    said = talk.unit("speak", "h", "i", "chunk_eos").utterance
    assert said.text == "hi"
    assert len(said.codes) == 25
    assert len(said.sound) == RATE_HZ
    # What was told: two words and the sign to begin; the last code is not read yet.
    assert speech.length == 3 + 24
    # The first codes but those that the vocoder must see ahead.
    assert said.sound[::960].tolist() == [4218] * 3 + list(said.codes[:-3])


def test_the_end_of_a_turn_flushes_all_and_begins_anew(speaker):
    talk, speech, vocoder = speaker()
    resets = vocoder.resets
    first = talk.unit("speak", "h", "chunk_eos").utterance
    last = talk.unit("i", "turn_eos", "chunk_eos").utterance
    assert last.sound[::960].tolist() == [*first.codes[-3:], *last.codes]
    assert speech.length == 0
    assert vocoder.resets == resets + 1


def test_silent_where_it_listens(speaker):
    talk, speech, _ = speaker()
    said = talk.unit("listen").utterance
    assert (said.text, said.codes, said.sound, said.problem) == ("", (), None, "")
    assert speech.length == 0


def test_without_a_vocoder_there_are_codes_and_without_speech_only_text(
    speaker, network, tokenizer
):
    talk, _, _ = speaker(vocoder=None)
    said = talk.unit("speak", "h", "chunk_eos").utterance
    assert len(said.codes) == 25
    assert said.sound is None
    talk = Talk(network, tokenizer, speaks=False, vocoder=Echo())
    said = talk.unit("speak", "h", "chunk_eos").utterance
    assert (said.text, said.codes, said.sound) == ("h", (), None)


def test_a_turn_longer_than_the_speech_decoder_goes_on(speaker):
    talk, speech, _ = speaker(capacity=70)
    lengths = []
    for number in range(5):
        said = talk.unit("speak" if number == 0 else "a", "b", "chunk_eos").utterance
        assert said.problem == ""
        assert said.codes
        lengths.append(speech.length)
    # Two chunks fit; the third begins as a turn does.
    assert lengths[0] < lengths[1]
    assert lengths[2] <= lengths[0] + 1
    assert max(lengths) <= 70


def test_a_chunk_longer_than_the_speech_decoder_is_only_text(speaker):
    talk, _, _ = speaker(capacity=30)
    said = talk.unit("speak", *["a"] * 9, "chunk_eos").utterance
    assert said.text == "a" * 9
    assert "speech of a unit is lost" in said.problem
    assert (said.codes, said.sound) == ((), None)
    assert talk.unit("b", "chunk_eos").utterance.problem == ""


def test_speech_gone_wrong_loses_that_speech_and_nothing_else(speaker):
    talk, speech, vocoder = speaker()
    other, _, _ = speaker()
    for one in (talk, other):
        one.unit("speak", "h", "chunk_eos")
    original, calls = speech.logits, []

    def spoilt(hidden):
        calls.append(1)
        return original(hidden) * (np.nan if len(calls) == 3 else 1)

    speech.logits = spoilt
    resets = vocoder.resets
    outcome, expected = (one.unit("i", "chunk_eos") for one in (talk, other))
    said = outcome.utterance
    assert said.text == "i"
    assert "NaN" in said.problem
    assert (said.codes, said.sound) == ((), None)
    assert outcome.fed == expected.fed
    assert vocoder.resets == resets + 1
    assert speech.length == 0
    # The conversation is the same, and the turn goes on to be spoken.
    assert talk.state() == other.state()
    np.testing.assert_array_equal(talk.keys(), other.keys())
    said = talk.unit("j", "chunk_eos").utterance
    assert said.problem == ""
    assert said.codes
    # Fresh: the vocoder begins with silence.
    assert said.sound[-960 * len(said.codes) :: 960].tolist()[:3] == [4218] * 3

"""What is said, on its way to text and speech: long turns, and what goes wrong behind the text."""

from __future__ import annotations

import numpy as np
import pytest

from minicpmo_ros.duplex.vocoding import RATE_HZ
from minicpmo_ros.errors import InputError
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
    talk, speech, _ = speaker(speech_lead_ms=0)
    said = talk.unit("speak", "h", "i", "chunk_eos").utterance
    assert said.text == "hi"
    assert len(said.codes) == 25
    # What was told: two words and the sign to begin; the last code is not read yet.
    assert speech.length == 3 + 24
    # The first codes but those that the vocoder must see ahead.
    assert said.sound[::960].tolist() == list(said.codes[:-3])
    later = talk.unit("j", "chunk_eos").utterance
    assert len(later.sound) == RATE_HZ
    assert later.sound[::960].tolist() == [*said.codes[-3:], *later.codes[:-3]]


def test_in_the_reference_a_turn_begins_with_silence(speaker):
    talk, _, _ = speaker(reference_compat=True)
    said = talk.unit("speak", "h", "i", "chunk_eos").utterance
    assert said.sound[::960].tolist() == [4218] * 3 + list(said.codes[:-3])
    assert len(said.sound) == RATE_HZ


def test_sound_is_there_before_all_of_the_unit_is_made(speaker):
    talk, speech, _ = speaker(speech_lead_ms=0)
    outcome = talk.hear("speak", "h", "i", "chunk_eos", streamed=True)
    saying = outcome.saying
    assert (saying.text, saying.codes, speech.length) == ("hi", [], 0)
    first = next(saying.pieces)
    assert len(saying.codes) == 11
    assert first.sound[::960].tolist() == saying.codes[:8]
    rest = outcome.utterance
    assert len(rest.codes) == 25
    assert rest.sound[::960].tolist() == list(rest.codes[8:22])
    other, _, _ = speaker(speech_lead_ms=0)
    assert other.hear("speak", "h", "i", "chunk_eos").utterance.codes == rest.codes


def test_a_turn_that_goes_on_is_led_in_and_one_that_does_not_is_not(speaker):
    talk, _, _ = speaker(speech_lead_ms=200)
    said = talk.unit("speak", "h", "chunk_eos").utterance
    assert not said.sound[:4800].any()
    assert said.sound[4800::960].tolist() == list(said.codes[:22])
    later = talk.unit("i", "turn_eos", "chunk_eos").utterance
    assert later.sound[::960].tolist() == [*said.codes[-3:], *later.codes]
    short = talk.unit("speak", "h", "turn_eos", "chunk_eos").utterance
    assert short.sound[::960].tolist() == list(short.codes)
    again = talk.unit("speak", "h", "chunk_eos").utterance
    assert not again.sound[:4800].any()


def test_words_are_tied_to_the_sound_of_their_units_codes(speaker):
    talk, _, _ = speaker(speech_lead_ms=100)
    said = talk.unit("speak", *"ab cde f", "chunk_eos").utterance
    marks = [(word.text, word.start_sample, word.end_sample) for word in said.words]
    # Six letters share 25 codes; of 22 there is sound, behind the lead. The last may go on.
    # "ab" ends in the second piece, which begins behind 8 codes, and is that one's.
    assert marks == [("ab", 2400 + 8 * 960, 10_400), ("cde", 10_400, 22_400)]
    later = talk.unit(*"g h", "turn_eos", "chunk_eos").utterance
    count = 960 * len(later.codes)
    ends = [(word.text, word.end_sample) for word in later.words]
    assert ends == [("fg", 3 * 960 + count // 2), ("h", 3 * 960 + count)]
    assert later.words[0].start_sample == 0  # it began in the second before


@pytest.mark.parametrize("taken", [0, 1])
def test_pieces_that_nobody_wants_are_not_said_later(speaker, taken):
    talk, speech, _ = speaker()
    outcome = talk.hear("speak", "h", "i", "chunk_eos", streamed=True)
    for _ in range(taken):
        next(outcome.saying.pieces)
    talk.conversation.interrupt()
    assert speech.length == 0
    assert outcome.utterance.sound.tolist() == []
    talk.unit()
    fresh = talk.unit("speak", "h", "turn_eos", "chunk_eos").utterance
    assert fresh.sound[::960].tolist() == list(fresh.codes)
    assert [word.text for word in fresh.words] == ["h"]


def test_a_turn_that_ended_unheard_does_not_go_on_in_the_next(speaker):
    """Nobody asked for a single piece of its end."""
    talk, speech, _ = speaker()
    talk.unit("speak", "h", "chunk_eos")
    talk.hear("i", "turn_eos", "chunk_eos", streamed=True)
    talk.unit("listen")
    assert speech.length == 0
    fresh = talk.unit("speak", "h", "turn_eos", "chunk_eos").utterance
    assert fresh.sound[::960].tolist() == list(fresh.codes)


class Refusing(Echo):
    """Knows only codes below 5."""

    def stream(self, codes, last):
        if max(codes, default=0) >= 5:
            raise InputError("a speech token is not in 0 to 4")
        return super().stream(codes, last)


def test_codes_that_the_vocoder_does_not_know_cost_the_units_speech(speaker):
    talk, speech, _ = speaker(vocoder=Refusing())
    said = talk.unit("speak", "h", "chunk_eos").utterance
    assert (said.text, said.codes, said.sound) == ("h", (), None)
    assert said.problem == "speech of a unit is lost: a speech token is not in 0 to 4"
    assert speech.length == 0


def test_the_end_of_a_turn_flushes_all_and_begins_anew(speaker):
    talk, speech, vocoder = speaker()
    resets = vocoder.resets
    first = talk.unit("speak", "h", "chunk_eos").utterance
    last = talk.unit("i", "turn_eos", "chunk_eos").utterance
    assert last.sound[::960].tolist() == [*first.codes[-3:], *last.codes]
    assert [word.text for word in last.words] == ["hi"]
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
    # Fresh: the vocoder begins with the first of these codes.
    assert said.sound[-960 * 22 :: 960].tolist() == list(said.codes[:-3])

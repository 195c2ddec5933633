"""Whole conversations: the same twice, one after the other, for long, in half precision."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest

from minicpmo_ros.duplex.config import WindowConfig
from minicpmo_ros.errors import InputError, KvFullError
from minicpmo_ros.runtime.torch_runtime import TorchNetwork
from tests.duplex.talking import PREFIX, SUFFIX, Echo, Talk, picture, same, second


@pytest.fixture
def talk_with(network, tokenizer):
    """Makes conversations that draw what they say, and say it aloud."""
    return partial(Talk, network, tokenizer, drawn=True, speaks=True)


def play(talk: Talk, units: int = 4) -> list:
    outcomes = []
    for number in range(units):
        if number == 2:
            talk.conversation.show([picture(number)])
        shown = [picture(number)] if number % 2 == 0 else []
        outcomes.append(talk.unit(shown=shown))
    return outcomes


def equal(one: list, other: list) -> bool:
    return all(same(*pair) for pair in zip(one, other, strict=True))


def test_the_same_seed_and_input_give_the_same_bytes(talk_with):
    talks = [talk_with(seed=seed, vocoder=Echo()) for seed in (1, 1, 2)]
    first, again, different = map(play, talks)
    assert any(outcome.utterance.codes for outcome in first)
    assert equal(first, again)
    np.testing.assert_array_equal(talks[0].keys(), talks[1].keys())
    assert not equal(first, different)


def before(talk: Talk) -> None:
    """A session that leaves all that it can: a turn in the middle, half a character, an
    interruption, a unit not closed, one begun, units forgotten."""
    play(talk, 2)
    talk.hear()
    talk.conversation.show([picture(7)])
    talk.hear(shown=[picture(7)])
    talk.conversation.interrupt()


@pytest.mark.parametrize("mode", ["basic", "context"])
def test_a_new_session_knows_nothing_of_the_one_before(talk_with, mode):
    settings = {
        "vocoder": Echo(),
        "forced_listens": 1,
        "window": WindowConfig(mode, high_tokens=100, low_tokens=50, max_units=1),
    }
    talk, fresh = talk_with(**settings), talk_with(**settings)
    before(talk)
    assert talk.conversation.window.forgotten
    talk.open()
    assert talk.state() == fresh.state()
    assert equal(play(talk), play(fresh))
    assert talk.state() == fresh.state()
    np.testing.assert_array_equal(talk.keys(), fresh.keys())


def test_told_sessions_leave_no_turn_and_no_character(network, tokenizer):
    half = tokenizer.encode("𝄞")[0]
    talk = Talk(network, tokenizer)
    talk.hear("speak", "a", half, "chunk_eos")
    talk.open()
    assert talk.unit("listen").listens
    assert talk.unit("speak", "b", "chunk_eos").utterance.text == "b"


def test_in_the_reference_sound_is_still_heard_in_the_next_session(network, tokenizer):
    settings = {"reference_compat": True, "drawn": True}
    talk, fresh = Talk(network, tokenizer, **settings), Talk(network, tokenizer, **settings)
    play(talk, 1)
    talk.open()
    fresh.conversation.ears.step(second(0))
    fresh.conversation.ears.mel.reset()
    outcome, expected = talk.unit(), fresh.unit()
    assert outcome.p_listen == expected.p_listen
    assert outcome.p_listen != Talk(network, tokenizer, **settings).unit().p_listen


@pytest.mark.parametrize("bad", ["voice", "prompt"])
def test_a_session_that_cannot_begin_leaves_the_one_before(talk_with, bad):
    talk, other = talk_with(kv_capacity=256), talk_with(kv_capacity=256)
    for one in (talk, other):
        one.hear()
    if bad == "voice":
        with pytest.raises(InputError, match="reference voice"):
            talk.conversation.open(PREFIX, SUFFIX, np.zeros(16_000, np.float32))
    else:
        with pytest.raises(KvFullError, match="prompt"):
            talk.conversation.open(PREFIX * 100, SUFFIX)
    assert same(talk.unit(), other.unit())
    np.testing.assert_array_equal(talk.keys(), other.keys())


def test_a_voice_stands_between_the_halves_of_the_prompt(network, tokenizer):
    talk = Talk(network, tokenizer)
    voice = np.concatenate([second(1), second(2)])
    talk.conversation.open(PREFIX, SUFFIX, voice)
    context = network.context(100)
    context.read(PREFIX, network.voice(voice), SUFFIX)
    assert talk.rows == context.length == 4 + 20 + 2
    keys = context.keys(26)
    np.testing.assert_allclose(talk.keys(), keys, atol=1e-5 * np.abs(keys).max())
    talk.conversation.open([], [])
    assert talk.rows == 0


@pytest.mark.parametrize("mode", ["basic", "context"])
def test_minutes_pass_within_the_cache(network, tokenizer, mode):
    """What is remembered is what was said, and the network is asked nothing it cannot hold."""
    window = WindowConfig(mode, high_tokens=250, low_tokens=150, max_units=5, previous_tokens=12)
    talk = Talk(network, tokenizer, kv_capacity=330, window=window)
    words: list[int] = []
    for number in range(150):
        said = ["a", "b", "c"][: number % 4]
        talk.unit("speak", *said, "turn_eos", "chunk_eos", shown=[picture(1)][: number % 3 == 0])
        words += talk.ids(*said)
    kept = talk.conversation.window.units
    assert talk.conversation.window.forgotten + len(kept) == 150
    assert talk.conversation.window.preserved + sum(unit.rows for unit in kept) == talk.rows <= 330
    if mode == "context":
        gone = words[: len(words) - sum(len(unit.said) for unit in kept)]
        assert talk.conversation.window.previous[-12:] == gone[-12:]
        assert len(kept) <= 5


def test_units_of_32_pictures(network, tokenizer):
    window = WindowConfig("basic", high_tokens=2400, low_tokens=2300)
    talk = Talk(network, tokenizer, kv_capacity=2400, window=window)
    talk.unit("listen")
    for start in (0, 32):
        talk.unit("listen", shown=[picture(start + n) for n in range(32)])
        (*_, last) = talk.conversation.window.units
        assert last.rows == 13 + 32 * 66
    assert talk.conversation.window.forgotten == 2


def test_half_precision_decides_nearly_the_same(network, tokenizer, tiny_checkpoint):
    """A whole short conversation, told the same words."""
    half = TorchNetwork.load(tiny_checkpoint, precision="bf16")
    half.config = dataclasses.replace(half.config, slices=network.config.slices)
    talks = [Talk(each, tokenizer) for each in (network, half)]
    tokens = [("listen",), ("speak", "h", "i", "chunk_eos"), ("a", "turn_eos", "chunk_eos")]
    for number in range(9):
        shown = [picture(number)] if number % 2 else []
        one, other = (talk.unit(*tokens[number % 3], shown=shown) for talk in talks)
        # Measured: 8 % of a probability.
        assert other.p_listen == pytest.approx(one.p_listen, rel=0.25)
        assert other.p_speak == pytest.approx(one.p_speak, rel=0.25)
    single, coarse = (np.array(talk.told.logits, np.float64) for talk in talks)
    chances = [
        np.exp(logits) / np.exp(logits).sum(-1, keepdims=True) for logits in (single, coarse)
    ]
    # The probability that goes from some tokens to others, at every step. Measured: 0.013.
    moved = np.abs(chances[0] - chances[1]).sum(-1) / 2
    assert 1e-5 < moved.max() < 0.04

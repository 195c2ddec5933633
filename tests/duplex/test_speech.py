"""Turns of speech: the reference's codes, the rules of their sampler, chunks in a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minicpmo_ros.duplex.speech import CODES_PER_CHUNK, CodeSampler, SpeechTurn
from minicpmo_ros.errors import ConfigError, KvFullError, NumericsError
from minicpmo_ros.model.speech import SpeechDecoder
from minicpmo_ros.runtime.torch_runtime import TorchNetwork
from tests.model.decoders import (
    DATA,
    SPEECH,
    random,
    reference_speech,
    relative_error,
    small_speech,
)

EOS = SPEECH.eos


def turn_of(speech: SpeechDecoder, sampler: object, capacity: int | None = None) -> SpeechTurn:
    """A turn over a network of which there is only the speech decoder."""
    config = SimpleNamespace(llm=SimpleNamespace(hidden=speech.config.llm_hidden))
    network = TorchNetwork(config, *(torch.nn.Identity() for _ in range(3)), speech)
    return SpeechTurn(network, network.speech(capacity), sampler)


def say(turn: SpeechTurn, *ids: int, last: bool = False) -> list[int]:
    """A chunk of these tokens, with random thoughts."""
    return turn.chunk(ids, thoughts(ids), last=last)


def thoughts(ids: Sequence[int]) -> list[Tensor]:
    return list(random(len(ids), SPEECH.llm_hidden).split(1))


class Script:
    """A sampler that gives the codes it is told, and notes what it was asked."""

    def __init__(self, codes: Iterable[int]) -> None:
        self.eos = EOS
        self.codes = list(codes)
        self.might_end: list[bool] = []
        self.histories: list[list[int]] = []

    def __call__(self, logits: np.ndarray, history: Sequence[int], may_end: bool) -> int:
        self.might_end.append(may_end)
        self.histories.append(list(history))
        return self.codes.pop(0)


def test_codes_equal_the_reference():
    speech, reference = reference_speech(), np.load(DATA / "speech.npz")
    ids = reference["text_ids"].tolist()
    hidden = list(torch.from_numpy(reference["hidden"]).split(1))
    # The reference drew at a temperature of 1e-3, where two codes are still 0.6 to 0.4 once; it
    # drew the likelier.
    turn = turn_of(speech, CodeSampler(speech.config.eos, temperature=1e-6), 100)
    assert turn.chunk(ids, hidden) == reference["chunk1"].tolist()
    assert turn.length == 31
    assert turn.chunk(ids, hidden) == reference["chunk2"].tolist()
    assert turn.length == 62


def test_codes_are_drawn_as_often_as_temperature_says():
    logits = np.array([0.0, 1.0, 2.0, -1.0], np.float32)
    sampler = CodeSampler(3, temperature=0.8, rng=np.random.default_rng(0))
    drawn = [sampler(logits, [], may_end=True) for _ in range(3000)]
    expected = np.exp(logits / 0.8) / np.exp(logits / 0.8).sum()
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 3000, expected, atol=0.04)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-4, 4, width=32), min_size=6, max_size=6),
    st.lists(st.integers(0, 4), max_size=30),
    st.booleans(),
)
def test_repetition_is_penalised_by_how_often_in_the_last_sixteen(logits, history, may_end):
    """At a temperature near 0 the draw is the largest of the penalised logits."""
    penalised = []
    for code, logit in enumerate(logits):
        times = history[-16:].count(code)
        penalised.append(logit * 1.3**times if logit < 0 else logit / 1.3**times)
    if not may_end:
        penalised[5] = -np.inf
    best, second = sorted(penalised)[::-1][:2]
    if best - second < 1e-3:
        return
    sampler = CodeSampler(5, temperature=1e-6, repetition=1.3)
    assert sampler(np.float32(logits), history, may_end) == penalised.index(best)


@pytest.mark.parametrize("codes_since, drawn", [(15, 2), (16, 0)])
def test_a_code_is_forgiven_after_sixteen_others(codes_since, drawn):
    logits = np.array([1.0, -5.0, 0.9, 0.0], np.float32)
    sampler = CodeSampler(3, temperature=1e-6, repetition=1.3)
    assert sampler(logits, [0] + [1] * codes_since, may_end=False) == drawn


def test_without_a_window_nothing_is_penalised():
    sampler = CodeSampler(2, temperature=1e-6, repetition=4.0, window=0)
    assert sampler(np.array([1.0, 0.9, 0.0], np.float32), [0] * 9, may_end=False) == 0


def test_the_end_is_never_drawn_where_it_is_forbidden():
    logits = np.array([0.0, 0.0, 50.0], np.float32)
    sampler = CodeSampler(2)
    assert {sampler(logits, [], may_end=True) for _ in range(20)} == {2}
    assert {sampler(logits, [], may_end=False) for _ in range(50)} == {0, 1}
    assert logits.tolist() == [0.0, 0.0, 50.0]


def test_the_same_seed_draws_the_same_codes():
    def draw(seed: int) -> list[int]:
        turn = turn_of(small_speech(), CodeSampler(EOS, rng=np.random.default_rng(seed)))
        return say(turn, 1, 2) + say(turn, 3)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize("logits", [[0.0, np.nan, 1.0], [0.0, np.inf, 1.0], [-np.inf] * 3])
def test_logits_that_are_no_numbers_are_an_error(logits):
    with pytest.raises(NumericsError, match="speech decoder"):
        CodeSampler(2)(np.float32(logits), [], may_end=False)


@pytest.mark.parametrize(
    "setting",
    [{"temperature": 0.0}, {"temperature": float("nan")}, {"repetition": -1.0}, {"window": -1}],
)
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        CodeSampler(EOS, **setting)


def test_a_chunk_may_end_only_at_the_beginning_and_the_end_of_a_turn():
    sampler = Script([1] * 50 + [1, EOS, EOS])
    turn = turn_of(small_speech(), sampler)
    assert say(turn, 1) == [1] * CODES_PER_CHUNK
    assert say(turn, 2) == [1] * CODES_PER_CHUNK
    assert say(turn, 3, last=True) == [1]
    assert sampler.might_end == [True] * 25 + [False] * 25 + [True] * 2
    turn.restart()
    assert turn.length == 0
    assert say(turn, 1) == []
    assert turn.length == 2


def test_penalties_see_the_codes_of_their_own_chunk():
    sampler = Script([*range(25), 7, EOS])
    turn = turn_of(small_speech(), sampler)
    say(turn, 1)
    say(turn, 1, last=True)
    assert sampler.histories[24] == list(range(24))
    assert sampler.histories[25:] == [[], [7]]


def test_a_turn_is_one_sequence_of_conditions_and_codes():
    speech = small_speech()
    turn = turn_of(speech, Script([*range(25), 5, 6, EOS, *range(25), EOS]))
    words = [(1, 2), (3,), (4, 5, 6)]
    codes = [say(turn, *ids, last=True) for ids in words]
    sequence = []
    for ids, said in zip(words, codes, strict=True):
        condition = speech.condition(torch.tensor(ids), torch.cat(thoughts(ids)))
        sequence += [condition, speech.embed(torch.tensor(said))]
    whole = speech.cache()
    speech.extend(torch.cat(sequence), whole)
    assert codes == [[*range(25)], [5, 6], [*range(25)]]
    assert turn.length == whole.length == 3 + 25 + 2 + 2 + 4 + 25
    found, read = turn.context.cache, slice(0, turn.context.length)
    assert relative_error(found.k[:, :, read], whole.k[:, :, read]) < 1e-5
    assert relative_error(found.v[:, :, read], whole.v[:, :, read]) < 1e-5


def test_a_turn_too_long_for_its_cache_is_an_error_before_a_chunk_begins():
    turn = turn_of(small_speech(), Script([1] * 26), 27 + 10)
    say(turn, 1, 2)
    before = turn.context.cache.k.clone()
    with pytest.raises(KvFullError):
        say(turn, 3)
    assert turn.length == 3 + 25
    assert torch.equal(turn.context.cache.k, before)


def test_weights_gone_wrong_end_the_turn():
    speech = small_speech()
    speech.model.norm.weight.fill_(torch.nan)
    with pytest.raises(NumericsError):
        say(turn_of(speech, CodeSampler(EOS)), 1)

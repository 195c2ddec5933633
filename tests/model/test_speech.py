"""The speech decoder: the reference's codes, the rules of its sampler, and turns of chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from minicpmo_ros.errors import ConfigError, KvFullError, NumericsError
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.speech import CODES_PER_CHUNK, CodeSampler, SpeechDecoder, SpeechTurn
from tests.model.decoders import (
    DATA,
    SPEECH,
    random,
    reference_speech,
    relative_error,
    small_speech,
)

EOS = SPEECH.eos


def conditioned(speech: SpeechDecoder, *ids: int, seed: int = 0) -> Tensor:
    dtype = speech.emb_text.weight.dtype
    return speech.condition(
        torch.tensor(ids, dtype=torch.int64), random(len(ids), 64, seed=seed, dtype=dtype)
    )


class Script:
    """A sampler that gives the codes it is told, and notes what it was asked."""

    def __init__(self, codes: Iterable[int]) -> None:
        self.eos = EOS
        self.codes = list(codes)
        self.might_end: list[bool] = []
        self.histories: list[list[int]] = []

    def __call__(self, logits: Tensor, history: Sequence[int], may_end: bool) -> int:
        self.might_end.append(may_end)
        self.histories.append(list(history))
        return self.codes.pop(0)


def test_conditions_and_codes_equal_the_reference():
    speech, reference = reference_speech(), np.load(DATA / "speech.npz")
    condition = speech.condition(
        torch.from_numpy(reference["text_ids"]), torch.from_numpy(reference["hidden"])
    )
    assert relative_error(condition, reference["condition"]) < 1e-6
    # The reference drew at a temperature of 1e-3, where two codes are still 0.6 to 0.4 once; it
    # drew the likelier.
    sampler = CodeSampler(speech.config.eos, temperature=1e-6)
    turn = SpeechTurn(speech, speech.cache(100), sampler)
    assert turn.chunk(condition) == reference["chunk1"].tolist()
    assert turn.length == 31
    assert turn.chunk(condition) == reference["chunk2"].tolist()
    assert turn.length == 62


def test_a_checkpoint_fills_it_and_its_head_is_folded(tiny_checkpoint: Path):
    checkpoint = Checkpoint(tiny_checkpoint)
    config = checkpoint.config.speech
    speech = checkpoint.build(lambda: SpeechDecoder(config), "tts.")
    torch.testing.assert_close(speech.head_code[0].weight, reference_speech().head_code[0].weight)
    turn = SpeechTurn(speech, speech.cache(), CodeSampler(config.eos))
    thoughts = random(2, config.llm_hidden)
    assert len(turn.chunk(speech.condition(torch.tensor([5, 6]), thoughts))) <= CODES_PER_CHUNK


def test_a_condition_is_text_plus_thought_of_length_one():
    speech, ids, hidden = small_speech(), torch.tensor([3, 7]), random(2, 64)
    text = speech.emb_text(ids)
    merged = speech.condition(ids, hidden)
    torch.testing.assert_close((merged[:2] - text).norm(dim=-1), torch.ones(2))
    assert torch.equal(merged[2], speech.emb_text.weight[SPEECH.audio_bos])

    longer = speech.condition(ids, hidden, text_ended=True, normalize=False)
    torch.testing.assert_close(longer[:2] - text, speech.projector_semantic(hidden))
    assert torch.equal(longer[2], speech.emb_text.weight[SPEECH.text_eos])
    assert torch.equal(longer[3], speech.emb_text.weight[SPEECH.audio_bos])


def test_a_condition_without_text_is_the_sign_to_begin():
    speech = small_speech()
    assert torch.equal(conditioned(speech), speech.emb_text.weight[SPEECH.audio_bos][None])


def chances(sampler: CodeSampler, logits: Tensor, history: list[int], may_end: bool) -> Tensor:
    """How often each code is drawn."""
    drawn = [sampler(logits, history, may_end) for _ in range(3000)]
    return torch.bincount(torch.tensor(drawn), minlength=len(logits)) / len(drawn)


def test_codes_are_drawn_as_often_as_temperature_says():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    sampler = CodeSampler(3, temperature=0.8, generator=torch.Generator().manual_seed(0))
    found = chances(sampler, logits, [], may_end=True)
    torch.testing.assert_close(found, (logits / 0.8).softmax(-1), atol=0.04, rtol=0)


@settings(deadline=None, max_examples=60)
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
    assert sampler(torch.tensor(logits), history, may_end) == penalised.index(best)


@pytest.mark.parametrize("codes_since, drawn", [(15, 2), (16, 0)])
def test_a_code_is_forgiven_after_sixteen_others(codes_since, drawn):
    logits = torch.tensor([1.0, -5.0, 0.9, 0.0])
    sampler = CodeSampler(3, temperature=1e-6, repetition=1.3)
    assert sampler(logits, [0] + [1] * codes_since, may_end=False) == drawn


def test_the_end_is_never_drawn_where_it_is_forbidden():
    logits = torch.tensor([0.0, 0.0, 50.0])
    sampler = CodeSampler(2)
    assert {sampler(logits, [], may_end=True) for _ in range(20)} == {2}
    assert {sampler(logits, [], may_end=False) for _ in range(50)} == {0, 1}
    assert logits.tolist() == [0.0, 0.0, 50.0]


def test_the_same_seed_draws_the_same_codes():
    def draw(seed: int) -> list[int]:
        speech = small_speech()
        sampler = CodeSampler(EOS, generator=torch.Generator().manual_seed(seed))
        turn = SpeechTurn(speech, speech.cache(), sampler)
        return turn.chunk(conditioned(speech, 1, 2)) + turn.chunk(conditioned(speech, 3))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize(
    "logits", [[0.0, float("nan"), 1.0], [0.0, float("inf"), 1.0], [-float("inf")] * 3]
)
def test_logits_that_are_no_numbers_are_an_error(logits):
    with pytest.raises(NumericsError, match="speech decoder"):
        CodeSampler(2)(torch.tensor(logits), [], may_end=False)


@pytest.mark.parametrize(
    "setting",
    [{"temperature": 0.0}, {"temperature": float("nan")}, {"repetition": -1.0}, {"window": -1}],
)
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        CodeSampler(EOS, **setting)


def test_a_chunk_may_end_only_at_the_beginning_and_the_end_of_a_turn():
    speech = small_speech()
    sampler = Script([1] * 50 + [1, EOS, EOS])
    turn = SpeechTurn(speech, speech.cache(), sampler)
    assert turn.chunk(conditioned(speech, 1)) == [1] * CODES_PER_CHUNK
    assert turn.chunk(conditioned(speech, 2)) == [1] * CODES_PER_CHUNK
    assert turn.chunk(conditioned(speech, 3), last=True) == [1]
    assert sampler.might_end == [True] * 25 + [False] * 25 + [True] * 2
    turn.restart()
    assert turn.length == 0
    assert turn.chunk(conditioned(speech, 1)) == []
    assert turn.length == 2


def test_penalties_see_the_codes_of_their_own_chunk():
    speech, sampler = small_speech(), Script([*range(25), 7, EOS])
    turn = SpeechTurn(speech, speech.cache(), sampler)
    turn.chunk(conditioned(speech, 1))
    turn.chunk(conditioned(speech, 1), last=True)
    assert sampler.histories[24] == list(range(24))
    assert sampler.histories[25:] == [[], [7]]


def test_a_turn_is_one_sequence_of_conditions_and_codes():
    speech = small_speech()
    turn = SpeechTurn(speech, speech.cache(), Script([*range(25), 5, 6, EOS, *range(25), EOS]))
    conditions = [conditioned(speech, 1, 2), conditioned(speech, 3), conditioned(speech, 4, 5, 6)]
    codes = [turn.chunk(condition, last=True) for condition in conditions]
    sequence = [part for c, x in zip(codes, conditions, strict=True)
                for part in (x, speech.embed(torch.tensor(c)))]  # fmt: skip
    whole = speech.cache()
    speech.extend(torch.cat(sequence), whole)
    assert codes == [[*range(25)], [5, 6], [*range(25)]]
    assert turn.length == whole.length == 3 + 25 + 2 + 2 + 4 + 25
    rows = slice(0, turn.cache.length)
    assert relative_error(turn.cache.k[:, :, rows], whole.k[:, :, rows]) < 1e-5
    assert relative_error(turn.cache.v[:, :, rows], whole.v[:, :, rows]) < 1e-5


def test_a_turn_too_long_for_its_cache_is_an_error_before_a_chunk_begins():
    speech = small_speech()
    turn = SpeechTurn(speech, speech.cache(27 + 10), Script([1] * 26))
    turn.chunk(conditioned(speech, 1, 2))
    before = turn.cache.k.clone()
    with pytest.raises(KvFullError):
        turn.chunk(conditioned(speech, 3))
    assert turn.length == 3 + 25
    assert torch.equal(turn.cache.k, before)


def test_a_turn_has_all_the_positions_of_the_decoder():
    assert small_speech(max_positions=300).cache().capacity == 300


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_half_precision_is_close_to_single(dtype, tolerance):
    half, single = small_speech(dtype=dtype), small_speech()
    condition = conditioned(half, 1, 2, 3)
    assert relative_error(condition, conditioned(single, 1, 2, 3)) < tolerance
    turn = SpeechTurn(half, half.cache(), CodeSampler(EOS))
    assert len(turn.chunk(condition)) <= 25
    found = half.extend(condition, half.cache())
    assert relative_error(found, single.extend(condition.float(), single.cache())) < tolerance


def test_weights_gone_wrong_end_the_turn():
    speech = small_speech()
    speech.model.norm.weight.fill_(torch.nan)
    turn = SpeechTurn(speech, speech.cache(), CodeSampler(EOS))
    with pytest.raises(NumericsError):
        turn.chunk(conditioned(speech, 1))

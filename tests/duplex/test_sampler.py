"""The sampler's rules, one by one and together, against a plain statement of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.duplex.config import SamplerConfig
from minicpmo_ros.duplex.sampler import ReplySampler, TokenSampler, likeliest
from minicpmo_ros.errors import NumericsError
from minicpmo_ros.model.tokenizer import ControlIds

VOCAB = 60
CONTROL = ControlIds(*range(VOCAB - len(fields(ControlIds)), VOCAB))
FORBIDDEN = (3, 5)
# All rules but the first two do nothing.
BARE = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition": 1.0, "length_penalty": 1.0}
SURE = 1000.0


class Dice:
    """In place of a random generator: what it is told, then never stop, and half."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)


def make(dice: Dice | None = None, *, compat: bool = False, **settings: float) -> TokenSampler:
    """A sampler with only the rules that are named, or all where `dice` decides."""
    rng = dice or np.random.default_rng(0)
    config = SamplerConfig(**(BARE | settings))
    return TokenSampler(CONTROL, FORBIDDEN, config, rng, reference_compat=compat)


def draw_surely(sampler: TokenSampler, tokens: Iterable[int]) -> None:
    """Let a sampler draw just these."""
    for token in tokens:
        logits = np.zeros(VOCAB, np.float32)
        logits[token] = SURE
        assert sampler(logits) == token


def random_logits(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, VOCAB).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(), dtype=np.float64)
    return powers / powers.sum()


def chances_by_the_book(
    logits: np.ndarray, drawn: Sequence[int], config: SamplerConfig, compat: bool
) -> np.ndarray:
    """Rules 2 to 6 as they are written down: the probability of each token."""
    scores = logits.astype(np.float64)
    for token in (*FORBIDDEN, CONTROL.tts_pad, CONTROL.chunk_eos):
        scores[token] = -np.inf
    for token in set(list(drawn)[-config.repetition_window :]):
        if scores[token] > 0 or compat:
            scores[token] /= config.repetition
        else:
            scores[token] *= config.repetition
    if scores[CONTROL.turn_eos] > 0:
        scores[CONTROL.turn_eos] /= config.length_penalty
    else:
        scores[CONTROL.turn_eos] *= config.length_penalty
    if compat:
        scores[CONTROL.im_end] *= config.listen_scale
    else:
        scores[CONTROL.listen] += np.log(config.listen_scale)
    scores /= config.temperature
    if config.top_k:
        scores[scores < np.sort(scores)[-config.top_k]] = -np.inf
    before = 0.0
    for token in np.argsort(-scores):
        chance = softmax(np.where(np.isneginf(scores), -1e9, scores))[token]
        if before > config.top_p:
            break
        before += chance
        kept = scores[token]
    scores[scores < kept] = -np.inf
    return softmax(scores)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    drawn=st.lists(st.sampled_from([0, 1, 2, CONTROL.speak, CONTROL.turn_eos]), max_size=6),
    compat=st.booleans(),
    config=st.builds(
        SamplerConfig,
        temperature=st.sampled_from([0.3, 0.7, 1.5]),
        top_k=st.sampled_from([0, 1, 5, 20]),
        top_p=st.sampled_from([0.3, 0.8, 1.0]),
        repetition=st.sampled_from([0.8, 1.0, 1.3]),
        repetition_window=st.sampled_from([2, 512]),
        length_penalty=st.sampled_from([0.7, 1.1]),
        listen_scale=st.sampled_from([0.2, 1.0, 4.0]),
    ),
)
def test_all_rules_together_draw_as_often_as_by_the_book(seed, drawn, compat, config):
    logits = random_logits(seed)
    expected = chances_by_the_book(logits, drawn, config, compat)
    steps = 200
    counts = np.zeros(VOCAB)
    for step in range(steps):
        dice = Dice(*[0.5, 0.5] * len(drawn), 1 - 1e-12, (step + 0.5) / steps)
        sampler = TokenSampler(CONTROL, FORBIDDEN, config, dice, reference_compat=compat)
        draw_surely(sampler, drawn)
        counts[sampler(logits.copy())] += 1
    np.testing.assert_allclose(counts / steps, expected, atol=1.01 / steps)


def test_chunk_end_is_drawn_with_its_bare_probability():
    """Whatever the other rules say: temperature, penalties, forbidden tokens."""
    logits = random_logits()
    chance = softmax(logits)[CONTROL.chunk_eos]
    heated = {"temperature": 5.0, "top_k": 1, "repetition": 2.0}
    assert make(Dice(chance - 1e-6), **heated)(logits.copy()) == CONTROL.chunk_eos
    assert make(Dice(chance + 1e-6, 0.5), **heated)(logits.copy()) != CONTROL.chunk_eos


def test_chunk_end_is_drawn_that_often():
    logits, sampler = np.zeros(VOCAB, np.float32), make()
    logits[CONTROL.chunk_eos] = np.log(VOCAB - 1)
    stops = sum(sampler(logits.copy()) == CONTROL.chunk_eos for _ in range(2000))
    assert abs(stops - 1000) < 4 * np.sqrt(500)


def test_what_is_forbidden_is_never_drawn():
    logits = np.zeros(VOCAB, np.float32)
    for token in (*FORBIDDEN, CONTROL.tts_pad):
        logits[token] = 10.0
    sampler = make()
    assert {sampler(logits.copy()) for _ in range(200)}.isdisjoint({*FORBIDDEN, CONTROL.tts_pad})


@pytest.mark.parametrize(
    "compat, logit, left", [(False, 2.0, 1.6), (False, -2.0, -2.5), (True, -2.0, -1.6)]
)
def test_repetition_costs_unless_the_reference_favours_it(compat, logit, left):
    for other, drawn in ((left - 0.01, 7), (left + 0.01, 8)):
        sampler = make(compat=compat, repetition=1.25, greedy=True)
        draw_surely(sampler, [7])
        logits = np.full(VOCAB, -SURE, np.float32)
        logits[7], logits[8] = logit, other
        assert sampler(logits) == drawn


def test_chunk_end_does_not_count_as_drawn_but_control_tokens_do():
    def after(token: int) -> list[int]:
        # Room for one.
        sampler = make(repetition=2.0, repetition_window=1, greedy=True)
        draw_surely(sampler, [7, token])
        logits = np.full(VOCAB, -SURE, np.float32)
        logits[7], logits[8] = 1.0, 0.9
        return sampler(logits)

    assert after(CONTROL.chunk_eos) == 8
    assert after(CONTROL.speak) == 7


@pytest.mark.parametrize("logit, left", [(2.0, 1.6), (-2.0, -2.5)])
def test_length_penalty_puts_off_the_end_of_a_turn(logit, left):
    for other, drawn in ((left - 0.01, CONTROL.turn_eos), (left + 0.01, 8)):
        logits = np.full(VOCAB, -SURE, np.float32)
        logits[CONTROL.turn_eos], logits[8] = logit, other
        assert make(length_penalty=1.25, greedy=True)(logits) == drawn


def test_listen_scale_multiplies_the_probability_of_listening():
    logits = random_logits()
    bare = chances_by_the_book(logits, [], SamplerConfig(**BARE), False)
    scaled = chances_by_the_book(logits, [], SamplerConfig(**BARE, listen_scale=3.0), False)
    odds = [chances[CONTROL.listen] / chances[1] for chances in (bare, scaled)]
    assert odds[1] == pytest.approx(3 * odds[0])
    # The likeliest at 3 times its odds, but not at 2.9.
    logits = np.full(VOCAB, -SURE, np.float32)
    logits[8], logits[CONTROL.listen] = np.log(2.95), 0.0
    assert make(listen_scale=3.0, greedy=True)(logits.copy()) == CONTROL.listen
    assert make(listen_scale=2.9, greedy=True)(logits.copy()) == 8


def test_the_reference_scales_a_logit_and_of_another_token():
    logits = np.full(VOCAB, -SURE, np.float32)
    logits[CONTROL.im_end], logits[CONTROL.listen], logits[8] = 1.0, 1.1, 2.9
    assert make(compat=True, listen_scale=3.0, greedy=True)(logits.copy()) == CONTROL.im_end
    assert make(listen_scale=3.0, greedy=True)(logits.copy()) == 8


@pytest.mark.parametrize("compat, listen", [(False, CONTROL.listen), (True, CONTROL.im_end)])
def test_listening_among_the_likeliest_is_enough(compat, listen):
    logits = np.full(VOCAB, -SURE, np.float32)
    logits[7], logits[8], logits[9], logits[listen] = 3.0, 2.0, 2.0, 1.0
    assert make(compat=compat, listen_top_k=4, greedy=True)(logits.copy()) == listen
    assert make(compat=compat, listen_top_k=3, greedy=True)(logits.copy()) == 7


def test_listening_for_being_likely_does_not_count_as_drawn():
    sampler = make(listen_top_k=1, repetition=2.0, repetition_window=1, greedy=True)
    draw_surely(sampler, [7, CONTROL.listen])
    logits = np.full(VOCAB, -SURE, np.float32)
    logits[7], logits[8] = 1.0, 0.9
    assert sampler(logits) == 8


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("bad", ["nan", "infinite", "nothing", "nothing allowed"])
def test_logits_without_a_number_are_an_error(greedy, bad):
    logits = np.zeros(VOCAB, np.float32)
    if bad == "nan":
        logits[30] = np.nan
    elif bad == "infinite":
        logits[30] = np.inf
    else:
        logits[:] = -np.inf
    if bad == "nothing allowed":
        logits[[*FORBIDDEN]] = 1.0
    for sampler in (
        make(greedy=greedy),
        ReplySampler(FORBIDDEN, SamplerConfig(greedy=greedy), np.random.default_rng(0)),
    ):
        with pytest.raises(NumericsError, match="language model"):
            sampler(logits.copy())


def test_replies_know_repetition_and_what_is_forbidden():
    config = SamplerConfig(greedy=True, repetition=1.25)
    sampler = ReplySampler(FORBIDDEN, config, np.random.default_rng(0))
    logits = np.full(VOCAB, -SURE, np.float32)
    # No rule of duplex: the end of a chunk may be drawn, that of a turn is not put off.
    logits[FORBIDDEN[0]], logits[CONTROL.chunk_eos], logits[CONTROL.turn_eos] = 9.0, 2.0, 1.61
    assert sampler(logits.copy()) == CONTROL.chunk_eos
    assert sampler(logits.copy()) == CONTROL.turn_eos


@pytest.mark.parametrize("sampler", [TokenSampler, ReplySampler])
def test_the_same_seed_draws_the_same(sampler):
    def draw(seed: int) -> list[int]:
        args = [FORBIDDEN, SamplerConfig(), np.random.default_rng(seed)]
        one = TokenSampler(CONTROL, *args) if sampler is TokenSampler else ReplySampler(*args)
        return [one(random_logits(step)) for step in range(20)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


values = st.floats(-8, 8, width=16) | st.sampled_from([0.0, 1.0, -1.0, -np.inf])


@given(st.lists(values, min_size=1, max_size=400), st.integers(0, 420))
def test_the_likeliest_are_those_of_a_full_sort(logits, count):
    """Also with ties, with nothing finite, in vocabularies that are no multiple of a block."""
    found = likeliest(np.float32(logits), count).tolist()
    ranked = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if count == 0 or count >= len(logits):
        ranked = [token for token in ranked if logits[token] > -np.inf]
    assert found == ranked[: count or None]


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 5000), st.integers(1, 30))
def test_the_likeliest_of_a_large_vocabulary(seed, count, vocab, different):
    logits = np.random.default_rng(seed).integers(0, different, vocab).astype(np.float32)
    ranked = np.argsort(-logits, kind="stable")[:count]
    assert likeliest(logits, count).tolist() == ranked.tolist()

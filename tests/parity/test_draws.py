"""Codes of speech: which of two nearly equal ones the reference drew, which it wrote, how many."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.duplex.speech import CodeSampler
from minicpmo_ros.duplex.vocoding import FEWEST, CodeStream
from minicpmo_ros.parity.draws import GREEDY, ODDS, BiasedContext, LedContext, ReferenceNetwork
from minicpmo_ros.parity.session import Recorder, golden_codes, longest_turn
from minicpmo_ros.runtime.torch_runtime import TorchNetwork
from tests.model.decoders import small_llm, small_speech

CODES = st.lists(st.integers(0, 4000), max_size=25)


def test_a_golden_code_wins_where_it_is_nearly_as_likely_and_only_there():
    speech = small_speech()
    hidden = torch.randn(1, 48, generator=torch.Generator().manual_seed(0))
    logits = LedContext(speech, 9, temperature=1.0).logits(hidden)
    likeliest, second, third = np.argsort(-logits)[:3]
    # A temperature at which the second is just above the odds, and the third just below.
    gaps = logits[likeliest] - logits[[second, third]]
    temperature = float(gaps.mean() / np.log(ODDS))
    context = LedContext(speech, 9, temperature)
    context.expect([int(second), int(third), int(likeliest)])
    drawn = [int(context.logits(hidden).argmax()) for _ in range(4)]
    assert drawn == [second, likeliest, likeliest, likeliest]
    context.expect([int(second)])
    assert context.logits(hidden).argmax() == second


def test_a_golden_code_wins_also_where_it_is_penalised():
    speech = small_speech()
    hidden = torch.randn(1, 48, generator=torch.Generator().manual_seed(0))
    logits = LedContext(speech, 9, temperature=1.0).logits(hidden)
    likeliest, second = (int(code) for code in np.argsort(-logits)[:2])
    said = [second] * 4
    behind = logits[likeliest] - logits[second] / 1.05 ** len(said)
    context = LedContext(speech, 9, temperature=float(behind / np.log(500)))
    context.expect([second])
    sampler = CodeSampler(eos=0, temperature=GREEDY)
    assert sampler(logits, said, may_end=False) == likeliest
    assert sampler(context.logits(hidden), said, may_end=False) == second


def test_a_turn_may_be_longer_than_the_decoder_was_taught(wide_checkpoint):
    network = TorchNetwork.load(wide_checkpoint)
    taught = network.config.speech.max_positions
    rows = [{"n_tokens": 3, "n_tts_tokens": 25}] * (taught // 29 + 1)
    assert ReferenceNetwork(network, 0.001).speech().capacity == taught
    turn = ReferenceNetwork(network, 0.001, longest_turn=longest_turn(rows)).speech()
    assert turn.capacity == 29 * len(rows) > taught


def test_a_bias_is_added_and_the_first_logits_of_a_unit_are_kept():
    llm = small_llm()
    hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    plain = llm.head(hidden).numpy()
    context = BiasedContext(llm, 9, {4: 2.0, 30: -1.0})
    plain[:, 4] += 2.0
    plain[:, 30] -= 1.0
    context.logits(hidden[:1])
    context.begin_unit()
    context.logits(hidden[:2])[:] = 0.0
    context.logits(hidden)
    np.testing.assert_allclose(context.decisions, plain[1:2], atol=1e-5)


@given(st.lists(st.tuples(CODES, st.booleans()), max_size=8))
def test_codes_are_found_again_in_what_the_vocoder_was_given(chunks):
    recorder = Recorder()
    stream = CodeStream(recorder, reference_compat=True)
    rows: list[dict[str, Any]] = []
    for codes, last in chunks:
        recorder.given.clear()
        stream.push(codes, last=last)
        rows.append({"vocoder": list(recorder.given), "n_tts_tokens": len(codes)})
    every = [code for codes, _ in chunks for code in codes]
    found = golden_codes(rows)
    fresh = [code for codes in found for code in codes]
    assert fresh == every[: len(fresh)]
    assert len(every) - len(fresh) < (FEWEST if chunks and not chunks[-1][1] else 1)
    for codes, (pushed, _) in zip(found, chunks, strict=True):
        assert codes == pushed[: len(codes)]

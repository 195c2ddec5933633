"""Codes of speech: which of two nearly equal ones the reference drew, and which codes it wrote."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.duplex.vocoding import CodeStream
from minicpmo_ros.parity.draws import ODDS, BiasedContext, LedContext
from minicpmo_ros.parity.session import Recorder, golden_codes
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
    stream = CodeStream(recorder)
    rows: list[dict[str, Any]] = []
    for codes, last in chunks:
        recorder.given.clear()
        stream.push(codes, last=last)
        rows.append({"vocoder": list(recorder.given), "n_tts_tokens": len(codes)})
    for found, (codes, last) in zip(golden_codes(rows), chunks, strict=True):
        assert found == (codes if last else codes[: len(found)])
        assert len(codes) - len(found) < 8

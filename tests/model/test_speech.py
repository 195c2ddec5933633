"""The speech decoder: the reference's conditions, what is in one, and what it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.speech import SpeechDecoder
from tests.model.decoders import (
    DATA,
    SPEECH,
    random,
    reference_speech,
    relative_error,
    small_speech,
)


def conditioned(speech: SpeechDecoder, *ids: int, seed: int = 0) -> Tensor:
    dtype = speech.emb_text.weight.dtype
    return speech.condition(
        torch.tensor(ids, dtype=torch.int64), random(len(ids), 64, seed=seed, dtype=dtype)
    )


def test_conditions_equal_the_reference():
    speech, reference = reference_speech(), np.load(DATA / "speech.npz")
    condition = speech.condition(
        torch.from_numpy(reference["text_ids"]), torch.from_numpy(reference["hidden"])
    )
    assert relative_error(condition, reference["condition"]) < 1e-6


def test_a_checkpoint_fills_it_and_its_head_is_folded(tiny_checkpoint: Path):
    checkpoint = Checkpoint(tiny_checkpoint)
    config = checkpoint.config.speech
    speech = checkpoint.build(lambda: SpeechDecoder(config), "tts.")
    expected = reference_speech()
    torch.testing.assert_close(speech.head_code[0].weight, expected.head_code[0].weight)
    ids, thoughts = torch.tensor([5, 6]), random(2, config.llm_hidden)
    condition = speech.condition(ids, thoughts)
    # Not the last: the sign to begin is another one in a small vocabulary.
    assert torch.equal(condition[:2], expected.condition(ids, thoughts)[:2])
    hidden = speech.extend(condition, speech.cache())
    assert speech.head(hidden).shape == (3, config.codes)


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


def test_a_turn_has_all_the_positions_of_the_decoder():
    assert small_speech(max_positions=300).cache().capacity == 300


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_half_precision_is_close_to_single(dtype, tolerance):
    half, single = small_speech(dtype=dtype), small_speech()
    condition = conditioned(half, 1, 2, 3)
    assert relative_error(condition, conditioned(single, 1, 2, 3)) < tolerance
    found = half.extend(condition, half.cache())
    assert relative_error(found, single.extend(condition.float(), single.cache())) < tolerance
    assert half.head(found).dtype == torch.float32

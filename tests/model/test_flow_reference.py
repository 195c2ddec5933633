"""The flow network computes what the published code computes on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minicpmo_ros.model.flow.cache import EncoderCache
from minicpmo_ros.model.flow.stream import FlowOptions, FlowStream
from minicpmo_ros.model.flow.tiny import random_flow
from tests.model.audio_stage import relative_error
from tests.model.flow_network import (
    REFERENCE,
    TOKENS_SEED,
    WEIGHTS_SEED,
    at_once,
    codes,
    said,
    voice,
)

TOLERANCE = 5e-5


def test_the_encoder_chunk_by_chunk() -> None:
    flow = random_flow(seed=WEIGHTS_SEED)
    cache = EncoderCache.empty(flow.config)
    for index, (count, last) in enumerate([(20, False), (7, False), (2, False), (9, True)]):
        ids = codes(100 + index, count + 3 * (not last))
        known = np.arange(count + 3) < len(ids)
        mean, *own = flow.encode(np.pad(ids, (0, count + 3 - len(ids))), known, cache)
        cache = cache.followed_by(own, 1000, 2, "reference")
        assert relative_error(mean, REFERENCE[f"mean_{index}"]) < TOLERANCE


def test_the_estimator_chunk_by_chunk() -> None:
    flow = random_flow(seed=WEIGHTS_SEED)
    mels = flow.config.mels
    layers, final = (part[0] for part in flow.estimator.modulation(torch.tensor([0.3])))
    before, k, v = torch.zeros(2, 2, 48, 2), torch.zeros(2, 2, 2, 0, 8), torch.zeros(2, 2, 2, 0, 8)
    for index, frames in enumerate([14, 6, 2]):
        random = np.random.RandomState(200 + index)
        channels_first = random.randn(3, mels, frames).astype(np.float32)
        who = torch.from_numpy(random.randn(mels).astype(np.float32))
        x, mean, known = torch.from_numpy(channels_first).transpose(1, 2)
        velocities, before, own_k, own_v = flow.estimator(
            x, mean, who, known, layers, final, before, k, v
        )
        k, v = torch.cat((k, own_k), dim=3), torch.cat((v, own_v), dim=3)
        assert relative_error(velocities, REFERENCE[f"velocity_{index}"]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "prompt_tokens", "steps", "chunks"),
    [
        ("long_prompt", 60, 10, [25] * 7 + [11]),
        ("short_prompt", 20, 5, [25] * 6 + [4]),
        ("early", 60, 5, [8, 12, 25, 25, 25, 25, 25, 7]),
        ("three_steps", 35, 3, [25, 25, 3, 2, 40, 25, 25, 12]),
    ],
)
def test_a_turn_chunk_by_chunk_with_caches_that_fill(
    name: str, prompt_tokens: int, steps: int, chunks: list[int]
) -> None:
    options = FlowOptions(steps=steps, seed=WEIGHTS_SEED, noise="cache")
    stream = FlowStream(random_flow(seed=WEIGHTS_SEED), voice(prompt_tokens), options)
    frames = said(stream, codes(TOKENS_SEED, sum(chunks)), chunks)
    assert [len(part) for part in frames] == [2 * count for count in chunks]
    assert relative_error(np.concatenate(frames), REFERENCE[name]) < TOLERANCE


def test_a_whole_turn_at_once() -> None:
    flow = random_flow(seed=WEIGHTS_SEED)
    found = at_once(flow, voice(30, seed=3), codes(4, 40), steps=10, seed=WEIGHTS_SEED)
    assert relative_error(found, REFERENCE["whole"]) < TOLERANCE

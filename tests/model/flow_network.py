"""The flow network with random weights, voices and tokens from seeds, and all at once what a stream
does in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from minicpmo_ros.model.flow.cache import EncoderCache
from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.network import Flow
from minicpmo_ros.model.flow.noise import Noise
from minicpmo_ros.model.flow.prompt import VoicePrompt
from minicpmo_ros.model.flow.solver import guided, schedule
from minicpmo_ros.model.flow.stream import FlowStream
from minicpmo_ros.model.flow.tiny import TINY

REFERENCE = np.load(Path(__file__).parent / "data" / "flow.npz")
# Seeds of what the reference was given.
WEIGHTS_SEED, VOICE_SEED, TOKENS_SEED = 5, 12, 13


def codes(seed: int, count: int) -> NDArray[np.int64]:
    """Speech tokens [count]."""
    return np.random.RandomState(seed).randint(0, TINY.tokens, count)


def voice(tokens: int, seed: int = VOICE_SEED, config: FlowConfig = TINY) -> VoicePrompt:
    random = np.random.RandomState(seed)
    return VoicePrompt(
        random.randint(0, config.tokens, tokens),
        random.randn(2 * tokens, config.mels).astype(np.float32),
        random.randn(config.voice).astype(np.float32),
    )


def said(
    stream: FlowStream, tokens: NDArray[np.int64], chunks: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Frames of each chunk: all but the last are followed by the look-ahead when they are said."""
    found, start = [], 0
    for index in range(len(chunks)):
        last = index == len(chunks) - 1
        stop = len(tokens) if last else sum(chunks[: index + 1]) + stream.look_ahead
        found.append(stream.push(tokens[start:stop], last=last))
        start = stop
    return found


def at_once(
    flow: Flow,
    prompt: VoicePrompt,
    tokens: NDArray[np.int64],
    steps: int,
    seed: int,
    chunks: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """Frames of a whole turn, computed together with the prompt.

    chunks: each sees itself and what is before it, as in a stream; None: all see all.
    """
    ids = torch.from_numpy(np.concatenate((prompt.tokens, tokens)))
    count, up = len(ids), flow.config.conformer.up
    seen = up_seen = None
    if chunks is not None:
        block = torch.repeat_interleave(
            torch.arange(len(chunks) + 1), torch.tensor([len(prompt.tokens), *chunks])
        )
        seen = block[:, None] >= block[None]
        up_seen = seen.repeat_interleave(up, 0).repeat_interleave(up, 1)
    look_ahead = flow.config.conformer.look_ahead
    nothing = vars(EncoderCache.empty(flow.config)).values()
    before, up_before, *caches = map(torch.from_numpy, nothing)
    mean, *_ = flow.encoder(
        torch.nn.functional.pad(ids, (0, look_ahead)),
        torch.arange(count + look_ahead) < count,
        before,
        up_before,
        *flow.encoder.encoder.distances(count),
        *caches,
        seen,
    )
    x = torch.from_numpy(Noise(flow.config.mels, seed).frames(0, len(mean)))
    known = torch.zeros_like(x)
    known[: len(prompt.mel)] = torch.from_numpy(prompt.mel)
    times = schedule(steps)
    layers, final = flow.estimator.modulation(torch.from_numpy(times[:-1]))
    who = flow.voice(torch.from_numpy(prompt.voice))
    sizes = flow.config.estimator
    rows = torch.zeros(sizes.layers, 2, sizes.heads, 0, sizes.head_dim)
    before = torch.zeros(sizes.layers, 2, 2 * sizes.hidden, sizes.kernel - 1)
    for step in range(steps):
        velocities, *_ = flow.estimator(
            x, mean, who, known, layers[step], final[step], before, rows, rows, up_seen
        )
        velocity = torch.from_numpy(guided(velocities.numpy(), flow.config.guidance))
        x = x + float(times[step + 1] - times[step]) * velocity
    return x[len(prompt.mel) :].numpy()

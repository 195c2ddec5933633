"""How long each stage of the network takes, beside a read of the same weights from memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import torch

from minicpmo_ros.bench.noise import noise_picture, noise_sound
from minicpmo_ros.bench.random_network import random_stage
from minicpmo_ros.duplex.speech import CodeSampler, SpeechTurn
from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.audio_stream import AudioStream
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.decoder import Decoder
from minicpmo_ros.model.packed import size_of
from minicpmo_ros.model.picture import slices
from minicpmo_ros.model.speech import SpeechDecoder
from minicpmo_ros.model.vision import VisionStage
from minicpmo_ros.runtime.torch_runtime import TorchContext

PREFILL = 79  # a unit with one picture
PAST = 512  # what the language model has read before
LAYERS = 2  # of the language model, as many as are made to time one
BUDGET_S = 4.0
MS = 1e3

Times = dict[str, float]
"""Milliseconds by figure, and bytes by "bytes.NAME"."""


def repeat(work: Callable[[], object], device: torch.device, budget_s: float = BUDGET_S) -> float:
    """Median time of some work, in ms: once to warm up, then three times or more in a budget."""
    once_ms(work, device)
    end_s = time.perf_counter() + budget_s
    spans = [once_ms(work, device) for _ in range(3)]
    while time.perf_counter() < end_s and len(spans) < 50:
        spans.append(once_ms(work, device))
    return median(spans)


def once_ms(work: Callable[[], object], device: torch.device) -> float:
    """Time of some work, with all that it leaves to a card."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) * MS


def vision_ms(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Times:
    """A picture of 640 x 480: cut on the CPU, then encoded."""
    stage = random_stage(lambda: VisionStage(config.vision, config.resampler), dtype, device)
    picture = noise_picture(0)
    shown = slices(picture, 1, config.slices)
    return {
        "picture_ms": repeat(lambda: slices(picture, 1, config.slices), torch.device("cpu")),
        "vision_ms": repeat(lambda: stage.look(shown), device),
        "bytes.vision": float(size_of(stage)),
    }


def audio_ms(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Times:
    """A second of sound in a stream; seconds of a whole cache are passed through."""
    stage = random_stage(lambda: Audio(config.audio), dtype, device)
    stream = AudioStream(stage)
    second = noise_sound(1)
    return {
        "audio_ms": repeat(lambda: stream.step(second), device),
        "bytes.audio": float(size_of(stage)),
    }


@torch.inference_mode()
def llm_ms(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Times:
    """One layer of the language model: reading 79 embeddings, and one, behind 512; and one pass
    over a layer's bytes, which no decode can be faster than."""
    few = replace(config.llm, layers=min(LAYERS, config.llm.layers))
    decoder = random_stage(lambda: Decoder(few, norm_heads=True), dtype, device)
    cache = decoder.cache(PAST + PREFILL)
    embeds = torch.randn(PAST + PREFILL, few.hidden).to(device=device, dtype=dtype)

    def read(count: int) -> Callable[[], object]:
        def work() -> None:
            cache.truncate(PAST)
            decoder.extend(embeds[:count], cache)

        return work

    decoder.extend(embeds[:PAST], cache)
    layer_bytes = layer_parameters(config) * dtype.itemsize
    return {
        "prefill_ms_per_layer": repeat(read(PREFILL), device) / few.layers,
        "decode_ms_per_layer": repeat(read(1), device) / few.layers,
        "read_ms_per_layer": read_ms(layer_bytes * few.layers, device) / few.layers,
        "bytes.llm_layer": layer_bytes,
    }


def speech_ms(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Times:
    """One code of speech, of a chunk of 25 with its condition."""
    stage = random_stage(lambda: SpeechDecoder(config.speech_sizes()), dtype, device)
    network = _SpeechOnly(config, stage)
    sampler = CodeSampler(config.speech_sizes().eos, rng=np.random.default_rng(0))
    turn = SpeechTurn(network, TorchContext(stage, None), sampler)  # type: ignore[arg-type]
    hidden = [torch.randn(1, config.llm.hidden).to(device=device, dtype=dtype) for _ in range(8)]
    made: list[int] = []

    def chunk() -> None:
        turn.restart()
        turn.sampler.eos = -1  # a random network may end at once
        made.append(len(turn.chunk(range(8), hidden)))

    whole = repeat(chunk, device)
    return {"speech_token_ms": whole / made[-1], "bytes.speech": float(size_of(stage))}


class _SpeechOnly:
    """As much of a network as a turn of speech needs."""

    def __init__(self, config: ModelConfig, stage: SpeechDecoder) -> None:
        self.config = config
        self._stage = stage

    @torch.inference_mode()
    def condition(
        self, ids: range, hidden: list[torch.Tensor], *, text_ended: bool, normalize: bool
    ) -> torch.Tensor:
        found = torch.tensor(list(ids), device=hidden[0].device)
        return self._stage.condition(
            found, torch.cat(hidden), text_ended=text_ended, normalize=normalize
        )


def read_ms(nbytes: int, device: torch.device) -> float:
    """One pass over so much memory by all cores, or the whole card."""
    block = torch.ones(max(nbytes // 8, 1), dtype=torch.int64, device=device)
    return repeat(lambda: block.sum(), device, 1.0)


def layer_parameters(config: ModelConfig) -> int:
    """Weights of one layer of the language model."""
    llm = config.llm
    queries, keys = llm.heads * llm.head_dim, llm.kv_heads * llm.head_dim
    return llm.hidden * (2 * queries + 2 * keys + 3 * llm.ffn)

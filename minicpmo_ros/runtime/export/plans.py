"""How each piece of a network becomes a file, and where in a checkpoint its weights are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.mel import WINDOW_FRAMES
from minicpmo_ros.model.part_configs import AudioConfig, LlmConfig, SpeechConfig
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines.pieces import BITS, Piece, Sizes, whole_blocks
from minicpmo_ros.runtime.export import vocoder_plans
from minicpmo_ros.runtime.export.graphs import JOINED, AudioStep, DecoderStep, Head, Look
from minicpmo_ros.runtime.export.turn import turn_plan
from minicpmo_ros.runtime.export.writer import Plan, Read, matrices

HEADS = {"llm.head": "llm.lm_head.weight", "speech.head": "tts.head_code.0.weight"}


def plan(piece: Piece, config: Sizes) -> Plan:
    """What `writer.export` makes of a piece that is a graph."""
    if isinstance(config, VocoderConfig):
        return vocoder_plans.plan(piece, config)
    how: Any = {"precision": piece.precision, "dtype": piece.dtype}
    few = piece.layers[1] - piece.layers[0]
    if piece.name == "vision":
        return vision_plan(config, **how)
    if piece.name == "audio":
        return audio_plan(config.audio, **how)
    if piece.name == "llm.head":
        return head_plan(config.llm.hidden, config.llm.vocab, **how)
    if piece.name == "speech.head":
        speech = config.speech_sizes()
        return head_plan(speech.hidden, speech.codes, **how)
    if piece.name == "llm.turn":
        return turn_plan(config.llm.head_dim, dtype=piece.dtype)
    if piece.part == "llm":
        last = piece.layers[1] == config.llm.layers
        layers = replace(config.llm, layers=few)
        return decoder_plan(layers, norm_heads=True, norm=last, **how)
    return decoder_plan(config.speech_sizes(), norm_heads=False, **how)


def weights(piece: Piece, config: Sizes, read: Read) -> Read:
    """What reads the weights of a piece by their names in its graph, of what reads a checkpoint's
    parameters by theirs."""
    if isinstance(config, VocoderConfig):
        return vocoder_plans.weights(piece, config, read)
    if piece.name == "vision":
        return _vision_weights(read, _ffn(config, piece.precision))
    if piece.name == "audio":
        return lambda name: read(name.removeprefix("audio."))
    return named(piece, read)


def named(piece: Piece, of: Callable[[str], Any]) -> Callable[[str], Any]:
    """Anything of a checkpoint's decoder or head by names of parameters, by those in the graph."""
    if piece.name in HEADS:
        return lambda name: of(HEADS[piece.name])
    prefix = "llm.model." if piece.part == "llm" else "tts.model."
    return lambda name: of(prefix + _moved(name, piece.layers[0]))


def _moved(name: str, by: int) -> str:
    """A weight of layer 0 is that of layer `by` in the whole decoder."""
    if not name.startswith("layers."):
        return name
    _, index, rest = name.split(".", 2)
    return f"layers.{by + int(index)}.{rest}"


def _ffn(config: ModelConfig, precision: str) -> int:
    """Width of the vision encoder's inner layer. One that blocks do not divide (4304) grows by
    zeros until they do, which changes nothing of what comes out."""
    ffn = config.vision.ffn
    return whole_blocks(ffn) if BITS[precision] else ffn


def vision_plan(config: ModelConfig, *, precision: str = "fp32", dtype: str = "float32") -> Plan:
    """See `graphs.Look`."""
    vision = replace(config.vision, ffn=_ffn(config, precision))
    return Plan(
        make=lambda: Look(vision, config.resampler),
        example=lambda: (
            torch.zeros(1, 3, vision.patch, vision.patch * 6),
            torch.zeros(1, 6, dtype=torch.int64),
            torch.zeros(1, 6, 2, dtype=torch.int64),
        ),
        dynamic=_patches(vision.patch),
        inputs=["pixels", "position_ids", "cells"],
        outputs=["embeddings"],
        bits=matrices(precision, "_proj", "fc1", "fc2", *JOINT),
        dtype=dtype,
    )


def decoder_plan(
    config: LlmConfig | SpeechConfig,
    *,
    norm_heads: bool,
    norm: bool = True,
    precision: str = "fp32",
    dtype: str = "float32",
) -> Plan:
    """Layers of a decoder: inputs embeds, past, cache.0, cache.1 and so on; outputs hidden, rows.0,
    rows.1 and so on. Weights have the names that they have in `Decoder`."""
    caches = [f"cache.{index}" for index in range(2 * config.layers)]
    # Of any number but one: the tracer takes that for a constant. A graph takes one as well.
    tokens, rows = (torch.export.Dim(name, min=2) for name in ("tokens", "rows"))

    def example() -> tuple[Any, ...]:
        return torch.zeros(5, config.hidden), torch.tensor([2]), _caches(config, config.kv_heads)

    return Plan(
        make=lambda: DecoderStep(config, norm_heads, norm),
        example=example,
        dynamic=({0: tokens}, None, [{1: rows}] * len(caches)),
        inputs=["embeds", "past", *caches],
        outputs=["hidden", *(name.replace("cache", "rows") for name in caches)],
        bits=matrices(precision, "_proj"),
        dtype=dtype,
        joined=JOINED,
        same=("decoder", config, norm_heads, norm),
    )


def audio_plan(config: AudioConfig, *, precision: str = "fp32", dtype: str = "float32") -> Plan:
    """See `graphs.AudioStep`."""
    caches = [f"cache.{index}" for index in range(2 * config.layers)]
    rows = torch.export.Dim("rows", min=2)

    def example() -> tuple[Any, ...]:
        mel = torch.zeros(config.mels, WINDOW_FRAMES)
        opening, frames, past = torch.tensor([True]), torch.tensor([100]), torch.tensor([2])
        return mel, opening, frames, past, _caches(config, config.heads)

    return Plan(
        make=lambda: AudioStep(Audio(config), half=dtype == "float16"),
        example=example,
        dynamic=(None, None, None, None, [{1: rows}] * len(caches)),
        inputs=["mel", "opening", "frames", "past", *caches],
        outputs=["embeddings", *(name.replace("cache", "rows") for name in caches)],
        bits=matrices(precision, "_proj", "fc1", "fc2", "linear1", "linear2"),
        dtype=dtype,
    )


def head_plan(hidden: int, vocab: int, *, precision: str = "fp32", dtype: str = "float32") -> Plan:
    """A head: input hidden, output logits; its weight is "head.weight"."""
    return Plan(
        make=lambda: Head(nn.Linear(hidden, vocab, bias=False)),
        example=lambda: (torch.zeros(5, hidden),),
        dynamic=({0: torch.export.Dim("tokens", min=2)},),
        inputs=["hidden"],
        outputs=["logits"],
        bits=matrices(precision, "head"),
        dtype=dtype,
    )


# The linear layers of `graphs.Look`, and which third of the checkpoint's joint matrix each is.
JOINT = {"q": 0, "k": 1, "v": 2, "out": None}


def _vision_weights(read: Read, ffn: int) -> Read:
    def found(name: str) -> np.ndarray:
        layer, _, kind = name.rpartition(".")
        if layer in JOINT:
            third = JOINT[layer]
            if third is None:
                return read(f"resampler.attn.out_proj.{kind}")
            joint = read(f"resampler.attn.in_proj_{kind}")
            return joint[third * len(joint) // 3 : (third + 1) * len(joint) // 3]
        weights = read(name)
        if layer.endswith("mlp.fc1"):
            return _grown(weights, 0, ffn)
        return _grown(weights, 1, ffn) if name.endswith("mlp.fc2.weight") else weights

    return found


def _grown(weights: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Zeros behind an axis until it has a size."""
    more = [(0, 0)] * weights.ndim
    more[axis] = (0, size - weights.shape[axis])
    return np.pad(weights, more)


def _caches(config: LlmConfig | SpeechConfig | AudioConfig, heads: int) -> list[torch.Tensor]:
    dim = config.hidden // heads if isinstance(config, AudioConfig) else config.head_dim
    return [torch.zeros(heads, 3, dim) for _ in range(2 * config.layers)]


def _patches(patch: int) -> tuple[dict[int, Any], ...]:
    patches = torch.export.Dim("patches", min=2, max=8192)
    return {3: patch * patches}, {1: patches}, {1: patches}

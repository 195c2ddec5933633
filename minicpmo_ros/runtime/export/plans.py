"""Which files a network becomes, and where in a checkpoint the weights of each are.

A large decoder becomes several files in a row, so that neither building nor loading ever holds it
twice, and what was built before a build was cut off is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.config import AudioConfig, LlmConfig, ModelConfig, SpeechConfig
from minicpmo_ros.model.decoder import Decoder
from minicpmo_ros.model.mel import WINDOW_FRAMES
from minicpmo_ros.runtime.export.graphs import AudioStep, DecoderStep, Head, Look
from minicpmo_ros.runtime.export.writer import Plan, Read
from minicpmo_ros.runtime.int4 import BLOCK

BITS = {"fp32": 0, "fp16": 0, "int8": 8, "int4": 4}
Rename = Callable[[str], str]


@dataclass(frozen=True)
class Part:
    """One file. name: of its cache entry, "llm.04" for layers from the fourth on. plan: how it is
    made. weights: takes what reads a checkpoint, gives what reads this file's weights."""

    name: str
    plan: Plan
    weights: Callable[[Read], Read]


def layer_groups(layers: int, per_file: int) -> Iterator[range]:
    """Layers file by file; 0 a file: all in one."""
    step = per_file or layers
    for start in range(0, layers, step):
        yield range(start, min(start + step, layers))


def llm_parts(
    config: LlmConfig, precision: str, dtype: str = "float32", layers_per_file: int = 4
) -> list[Part]:
    """The language model's layers, the final norm with the last of them."""
    parts = []
    for layers in layer_groups(config.layers, layers_per_file):

        def rename(name: str, first: int = layers.start) -> str:
            if not name.startswith("layers."):
                return f"llm.model.{name}"
            _, index, rest = name.split(".", 2)
            return f"llm.model.layers.{first + int(index)}.{rest}"

        few = replace(config, layers=len(layers))
        last = layers.stop == config.layers
        plan = decoder_plan(few, norm_heads=True, norm=last, precision=precision, dtype=dtype)
        parts.append(Part(f"llm.{layers.start:02}", plan, _renamed(rename)))
    return parts


def llm_head(config: LlmConfig, precision: str, dtype: str = "float32") -> Part:
    plan = head_plan(config.hidden, config.vocab, precision=precision, dtype=dtype)
    return Part("llm.head", plan, _renamed(lambda name: "llm.lm_head.weight"))


def speech_parts(config: SpeechConfig, precision: str, dtype: str = "float32") -> list[Part]:
    plan = decoder_plan(config, norm_heads=False, norm=True, precision=precision, dtype=dtype)
    return [Part("speech", plan, _renamed(lambda name: f"tts.model.{name}"))]


def speech_head(config: SpeechConfig, precision: str, dtype: str = "float32") -> Part:
    plan = head_plan(config.hidden, config.codes, precision=precision, dtype=dtype)
    return Part("speech.head", plan, _renamed(lambda name: "tts.head_code.0.weight"))


def audio_part(config: AudioConfig, precision: str, dtype: str = "float32") -> Part:
    plan = audio_plan(config, precision=precision, dtype=dtype)
    return Part("audio", plan, _renamed(lambda name: name.removeprefix("audio.")))


def vision_part(config: ModelConfig, precision: str, dtype: str = "float32") -> Part:
    """The encoder and the resampler. A width that blocks do not divide (4304, of the encoder's
    inner layer) grows by zeros until they do, which changes nothing of what comes out."""
    vision = config.vision
    if BITS[precision]:
        vision = replace(vision, ffn=-(-vision.ffn // BLOCK) * BLOCK)
    plan = Plan(
        make=lambda: Look(vision, config.resampler),
        example=lambda: (
            torch.zeros(1, 3, vision.patch, vision.patch * 6),
            torch.zeros(1, 6, dtype=torch.int64),
            torch.zeros(1, 6, 2, dtype=torch.int64),
        ),
        dynamic=_patches(vision.patch),
        inputs=["pixels", "position_ids", "cells"],
        outputs=["embeddings"],
        bits=_matrices(precision, "_proj", "fc1", "fc2", *(f"{name}" for name in JOINT)),
        dtype=dtype,
    )
    return Part("vision", plan, lambda read: _vision_weights(read, vision.ffn))


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
        make=lambda: DecoderStep(Decoder(config, norm_heads), norm),
        example=example,
        dynamic=({0: tokens}, None, [{1: rows}] * len(caches)),
        inputs=["embeds", "past", *caches],
        outputs=["hidden", *(name.replace("cache", "rows") for name in caches)],
        bits=_matrices(precision, "_proj"),
        dtype=dtype,
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
        make=lambda: AudioStep(Audio(config)),
        example=example,
        dynamic=(None, None, None, None, [{1: rows}] * len(caches)),
        inputs=["mel", "opening", "frames", "past", *caches],
        outputs=["embeddings", *(name.replace("cache", "rows") for name in caches)],
        bits=_matrices(precision, "_proj", "fc1", "fc2", "linear1", "linear2"),
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
        bits=_matrices(precision, "head"),
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


def _renamed(rename: Rename) -> Callable[[Read], Read]:
    return lambda read: lambda name: read(rename(name))


def _matrices(precision: str, *layers: str) -> Callable[[str], int]:
    """Bits of the weights of linear layers whose names end so; of all others none."""
    bits = BITS[precision]
    ends = tuple(f"{layer}.weight" for layer in layers)
    return lambda name: bits if name.endswith(ends) else 0


def _caches(config: LlmConfig | SpeechConfig | AudioConfig, heads: int) -> list[torch.Tensor]:
    dim = config.hidden // heads if isinstance(config, AudioConfig) else config.head_dim
    return [torch.zeros(heads, 3, dim) for _ in range(2 * config.layers)]


def _patches(patch: int) -> tuple[dict[int, Any], ...]:
    patches = torch.export.Dim("patches", min=2, max=8192)
    return {3: patch * patches}, {1: patches}, {1: patches}

"""Decoders for tests: those of the reference's checkpoint, and smaller ones of many shapes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from minicpmo_ros.model.checkpoint import WEIGHT_NORM
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.part_configs import LlmConfig, SpeechConfig
from minicpmo_ros.model.speech import SpeechDecoder
from minicpmo_ros.model.tiny import config_json, tensor

Stage = TypeVar("Stage", bound=nn.Module)

DATA = Path(__file__).parent / "data"

LLM = LlmConfig(
    hidden=64, layers=3, heads=6, kv_heads=2, head_dim=16, ffn=96, vocab=50, rope_theta=1e6,
    norm_eps=1e-6, max_positions=40960,
)  # fmt: skip
SPEECH = SpeechConfig(
    hidden=48, layers=2, heads=3, kv_heads=3, head_dim=16, ffn=80, rope_theta=1e4, norm_eps=1e-6,
    max_positions=4096, text_vocab=60, codes=40, llm_hidden=64, normalize_hidden=True,
    audio_bos=58, text_eos=59,
)  # fmt: skip


def small_llm(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes: int) -> Llm:
    """A language model of LLM's sizes, or of others, with random weights."""
    return _random(Llm(replace(LLM, **sizes)), seed).to(dtype)


def small_speech(seed: int = 0, dtype: torch.dtype = torch.float32, **sizes: int) -> SpeechDecoder:
    return _random(SpeechDecoder(replace(SPEECH, **sizes)), seed).to(dtype)


@cache
def reference_llm() -> Llm:
    """The language model of `minicpmo checkpoint tiny --seed 0`."""
    return _from_checkpoint(Llm(ModelConfig.from_json(config_json()).llm), "llm.")


@cache
def reference_speech() -> SpeechDecoder:
    """The speech decoder of `minicpmo checkpoint tiny --seed 0`."""
    return _from_checkpoint(SpeechDecoder(ModelConfig.from_json(config_json()).speech), "tts.")


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative_error(found: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> float:
    """Largest difference, as a share of the largest expected magnitude."""
    found, expected = torch.as_tensor(found).float(), torch.as_tensor(expected).float()
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def _random(stage: Stage, seed: int) -> Stage:
    """Weights that leave activations their size, and norms that are not all ones."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in stage.parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.data.normal_(generator=generator).mul_(scale)
        if parameter.ndim == 1:
            parameter.data.add_(1)
    return stage.eval().requires_grad_(False)


def _from_checkpoint(stage: Stage, prefix: str) -> Stage:
    weights = {}
    for name, parameter in stage.state_dict().items():
        key, shape = prefix + name, tuple(parameter.shape)
        if name == "head_code.0.weight":
            key = key.removesuffix(".weight") + WEIGHT_NORM
            gain, direction = tensor(0, key + "0", (shape[0], 1)), tensor(0, key + "1", shape)
            norm = np.linalg.norm(direction, axis=1, keepdims=True)
            weights[name] = torch.from_numpy(gain * direction / norm)
        else:
            weights[name] = torch.from_numpy(tensor(0, key, shape))
    stage.load_state_dict(weights)
    return stage.eval().requires_grad_(False)

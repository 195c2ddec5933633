"""The same layers in transformers, which is what the published code runs on: timed turn about with
ours, so that what else the machine does falls on both.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from minicpmo_ros.bench.random_network import random_stage
from minicpmo_ros.bench.stages import LAYERS, PAST, PREFILL, Times, once_ms
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.decoder import Decoder
from minicpmo_ros.model.vision import VisionEncoder

ROUNDS = 7

Work = Callable[[], object]


@torch.inference_mode()
def ratios(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Times:
    """Our time over that of transformers, by figure: below 1 is faster."""
    found = {"vision_x_transformers": _vision(config, dtype, device)}
    found |= _decoder("", config.llm, True, dtype, device)
    speech = _decoder("speech_", config.speech_sizes(), False, dtype, device)
    found["speech_token_x_transformers"] = speech["speech_decode_x_transformers"]
    return found


def turn_about(ours: Work, theirs: Work, device: torch.device) -> float:
    """Median of ours over median of theirs, after a round to warm up."""
    spans = [(once_ms(ours, device), once_ms(theirs, device)) for _ in range(ROUNDS + 1)][1:]
    return median(a for a, _ in spans) / median(b for _, b in spans)


def _vision(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> float:
    """Two layers over the patches of a picture of 640 x 480; attention as the published code asks
    for it (eager)."""
    from dataclasses import replace

    from transformers import SiglipVisionConfig
    from transformers.models.siglip.modeling_siglip import SiglipEncoder

    few = replace(config.vision, layers=LAYERS)
    ours = random_stage(lambda: VisionEncoder(few), dtype, device)
    theirs = _theirs(
        lambda: SiglipEncoder(
            SiglipVisionConfig(  # type: ignore[arg-type, call-arg]
                hidden_size=few.hidden,
                intermediate_size=few.ffn,
                num_hidden_layers=LAYERS,
                num_attention_heads=few.heads,
                attn_implementation="eager",
            )
        ),
        dtype,
        device,
    )
    patches = torch.randn(1, 37 * 28, few.hidden).to(device=device, dtype=dtype)
    return turn_about(lambda: ours(patches, None), lambda: theirs(inputs_embeds=patches), device)


def _decoder(
    prefix: str, config: Any, qwen: bool, dtype: torch.dtype, device: torch.device
) -> Times:
    """Two layers reading 79 embeddings, and one, behind 512."""
    from dataclasses import replace

    from transformers import DynamicCache

    few = replace(config, layers=LAYERS)
    ours = random_stage(lambda: Decoder(few, norm_heads=qwen), dtype, device)
    theirs = _theirs(lambda: _their_decoder(few, qwen), dtype, device)
    cache, past = ours.cache(PAST + PREFILL), DynamicCache()
    embeds = torch.randn(PAST + PREFILL, few.hidden).to(device=device, dtype=dtype)
    ours.extend(embeds[:PAST], cache)
    theirs(inputs_embeds=embeds[None, :PAST], past_key_values=past, use_cache=True)

    def read_ours(count: int) -> Work:
        def work() -> None:
            cache.truncate(PAST)
            ours.extend(embeds[:count], cache)

        return work

    def read_theirs(count: int) -> Work:
        def work() -> None:
            if (extra := past.get_seq_length() - PAST) > 0:
                past.crop(-extra)
            theirs(inputs_embeds=embeds[None, :count], past_key_values=past, use_cache=True)

        return work

    return {
        f"{prefix}{name}_x_transformers": turn_about(read_ours(count), read_theirs(count), device)
        for name, count in (("prefill", PREFILL), ("decode", 1))
    }


def _their_decoder(config: Any, qwen: bool) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaModel, Qwen3Config, Qwen3Model

    sizes = {
        "vocab_size": 8,
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_positions,
        "attn_implementation": "sdpa" if qwen else "eager",
    }
    return Qwen3Model(Qwen3Config(**sizes)) if qwen else LlamaModel(LlamaConfig(**sizes))


def _theirs(
    make: Callable[[], torch.nn.Module], dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return make().to(device).eval()
    finally:
        torch.set_default_dtype(before)

"""Small networks that are as hard to round as trained ones: a few channels carry large values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.tiny import config_json, write_checkpoint
from minicpmo_ros.model.weight_files import SINGLE
from minicpmo_ros.runtime.export.layerwise import CalibrationSequence

VOCAB = 1000
LLM = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3}
LLM |= {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32}


def write_outliers(directory: Path, seed: int = 0) -> Path:
    """A checkpoint whose language model has six large channels in its residual stream, gains that
    differ, and rows of v_proj and up_proj of very different sizes."""
    config = config_json("tiny", VOCAB) | LLM
    config["tts_config"]["llm_dim"] = LLM["hidden_size"]
    write_checkpoint(directory, seed, config)
    weights = load_file(directory / SINGLE)
    random = np.random.default_rng(seed)
    hidden, ffn = LLM["hidden_size"], LLM["intermediate_size"]
    large = np.exp(0.4 * random.standard_normal(hidden))
    large[random.choice(hidden, 6, replace=False)] *= 15

    def put(name: str, values: np.ndarray) -> None:
        assert weights[name].shape == values.shape
        weights[name] = torch.from_numpy(np.ascontiguousarray(values, np.float32))

    def matrix(outputs: int, inputs: int, unequal: float = 0.0) -> np.ndarray:
        rows = np.exp(unequal * random.standard_normal((outputs, 1)))
        return random.standard_normal((outputs, inputs)) * rows / np.sqrt(inputs)

    tokens = random.standard_normal((VOCAB, hidden)) + 0.5 * random.standard_normal(hidden)
    put("llm.model.embed_tokens.weight", 0.5 * large * tokens)
    put("llm.lm_head.weight", 3 * matrix(VOCAB, hidden) / np.sqrt(large))
    queries, keys = (LLM[f"num_{kind}_heads"] * 32 for kind in ("attention", "key_value"))
    for index in range(LLM["num_hidden_layers"]):
        layer = f"llm.model.layers.{index}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            put(f"{layer}.{norm}.weight", np.exp(0.5 * random.standard_normal(hidden)))
        put(f"{layer}.self_attn.q_proj.weight", matrix(queries, hidden))
        put(f"{layer}.self_attn.k_proj.weight", matrix(keys, hidden))
        put(f"{layer}.self_attn.v_proj.weight", matrix(keys, hidden, 0.8))
        put(f"{layer}.self_attn.o_proj.weight", 0.5 * large[:, None] * matrix(hidden, queries))
        put(f"{layer}.mlp.gate_proj.weight", matrix(ffn, hidden, 0.5))
        put(f"{layer}.mlp.up_proj.weight", matrix(ffn, hidden, 0.8))
        put(f"{layer}.mlp.down_proj.weight", 0.5 * large[:, None] * matrix(hidden, ffn))
    save_file(weights, directory / SINGLE)
    return directory


def reader(checkpoint: Checkpoint) -> Callable[[str], np.ndarray]:
    return lambda name: checkpoint.read(name).numpy()


def conversations(
    checkpoint: Checkpoint, seed: int, lengths: tuple[int, ...] = (120, 100)
) -> list[CalibrationSequence]:
    """Random tokens, of which every tenth is decided upon."""
    table = checkpoint.read("llm.model.embed_tokens.weight").numpy()
    random = np.random.default_rng(seed)
    return [
        CalibrationSequence(table[random.integers(0, len(table), n)], tuple(range(9, n, 10)))
        for n in lengths
    ]

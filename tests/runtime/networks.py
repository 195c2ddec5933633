"""A small random language model, and its files as `runtime.export` writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.part_configs import LlmConfig
from minicpmo_ros.runtime.engines.pieces import groups
from minicpmo_ros.runtime.export.plans import decoder_plan, head_plan
from minicpmo_ros.runtime.export.writer import export

CONFIG = LlmConfig(
    hidden=128, layers=3, heads=4, kv_heads=2, head_dim=64, ffn=256, vocab=300, rope_theta=1e6,
    norm_eps=1e-6, max_positions=4096,
)  # fmt: skip
LARGE = replace(CONFIG, hidden=1024, ffn=4096, heads=8, kv_heads=4, head_dim=128, layers=1)


def random_llm(config: LlmConfig = CONFIG) -> Llm:
    llm = Llm(config).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for one in llm.parameters():
        noise = torch.randn(one.shape, generator=random)
        one.copy_(noise * 0.05 if one.ndim > 1 else 1 + noise * 0.1)
    return llm


def llm_files(llm: Llm, folder: Path, dtype: str, precision: str, per_file: int) -> list[Path]:
    """The layers, some in each file, and the head behind them."""
    config = llm.config
    weights = {name: one.numpy() for name, one in llm.named_parameters()}
    files = []
    for first, stop in groups(config.layers, per_file):

        def read(name: str, first: int = first) -> np.ndarray:
            if not name.startswith("layers."):
                return weights[f"model.{name}"]
            _, index, rest = name.split(".", 2)
            return weights[f"model.layers.{first + int(index)}.{rest}"]

        few = replace(config, layers=stop - first)
        last = stop == config.layers
        plan = decoder_plan(few, norm_heads=True, norm=last, precision=precision, dtype=dtype)
        files.append(folder / f"llm.{first:02}.onnx")
        export(plan, read, files[-1])
    head = head_plan(config.hidden, config.vocab, dtype=dtype)
    files.append(folder / "llm.head.onnx")
    export(head, lambda name: weights["lm_head.weight"], files[-1])
    return files


def close(found: Any, expected: Any, tolerance: float) -> bool:
    found, expected = np.asarray(found), np.asarray(expected)
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())

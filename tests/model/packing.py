"""Writes checkpoints as AutoAWQ does; the reading of them is tested against this."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from minicpmo_ros.model.weight_files import SINGLE

# Which of eight outputs has the lowest four bits, which the next, and so on.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
CONFIG = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": 128,
    "zero_point": True,
    "version": "gemm",
    "modules_to_not_convert": ["vpm", "apm", "tts", "lm_head"],
}


def packed(codes: np.ndarray) -> torch.Tensor:
    """[rows, outputs], each 0 to 15, to int32 [rows, outputs / 8]."""
    found = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for place, output in enumerate(ORDER):
        found |= codes[:, output::8].astype(np.uint32) << np.uint32(4 * place)
    return torch.from_numpy(found.view(np.int32))


def drawn(seed: int, inputs: int, outputs: int, group: int) -> tuple[np.ndarray, ...]:
    """Codes [inputs, outputs], zero points and fp16 scales [inputs / group, outputs]."""
    random = np.random.default_rng(seed)
    groups = inputs // group
    codes = random.integers(0, 16, (inputs, outputs))
    zeros = random.integers(0, 16, (groups, outputs))
    scales = random.uniform(1e-3, 1e-1, (groups, outputs)).astype(np.float16)
    return codes, zeros, scales


def rounded(weights: np.ndarray, group: int) -> tuple[np.ndarray, ...]:
    """The same of weights [outputs, inputs], as AutoAWQ rounds a group: its least and its largest
    weight get the codes 0 and 15."""
    groups = np.ascontiguousarray(weights.T, np.float64).reshape(-1, group, len(weights))
    least, most = np.minimum(groups.min(1), 0), np.maximum(groups.max(1), 0)
    scales = ((most - least) / 15).astype(np.float16)
    zeros = np.clip(np.rint(-least / scales), 0, 15).astype(np.int64)
    codes = np.clip(np.rint(groups / scales[:, None]) + zeros[:, None], 0, 15).astype(np.int64)
    return codes.reshape(-1, len(weights)), zeros, scales


def plain(codes: np.ndarray, zeros: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """What they stand for: float32 [outputs, inputs], exact."""
    group = len(codes) // len(zeros)
    centred = codes - zeros.repeat(group, axis=0)
    weights: np.ndarray = (centred * scales.astype(np.float64).repeat(group, axis=0)).T
    return weights.astype(np.float32)


def pack_checkpoint(
    directory: Path,
    modules: Iterable[str],
    group: int = 128,
    *,
    keep: bool = False,
    **changed: Any,
) -> dict[str, np.ndarray]:
    """Replace matrices of a checkpoint by packed ones: what they stand for, by name.

    keep: near what they were; otherwise they are drawn anew. changed: fields of
    quantization_config.
    """
    weights = load_file(directory / SINGLE)
    expected = {}
    for seed, module in enumerate(modules):
        matrix = weights.pop(f"{module}.weight").numpy()
        outputs, inputs = matrix.shape
        found = rounded(matrix, group) if keep else drawn(seed, inputs, outputs, group)
        codes, zeros, scales = found
        weights[f"{module}.qweight"], weights[f"{module}.qzeros"] = packed(codes), packed(zeros)
        weights[f"{module}.scales"] = torch.from_numpy(scales)
        expected[f"{module}.weight"] = plain(codes, zeros, scales)
    save_file(weights, directory / SINGLE)
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = CONFIG | {"group_size": group} | changed
    (directory / "config.json").write_text(json.dumps(config))
    return expected

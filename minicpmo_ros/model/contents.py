"""What is in a checkpoint, and in how much memory it will run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from minicpmo_ros.model.awq import PackedEntry
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.layout import PARTS, is_unused
from minicpmo_ros.model.part_configs import LlmConfig
from minicpmo_ros.model.weight_files import Entry

GIB = 2**30
# Bytes a parameter; int4 has one fp16 scale for each block of 128 weights.
PRECISIONS = {"fp32": 4.0, "bf16": 2.0, "int4": 0.5 + 2 / 128}
# In int4, these are; all else stays bf16.
_INT4 = re.compile(r"llm\.(model\.layers\.\d+\..*_proj|lm_head)\.weight")
# Activations, the caches of encoders and speech, and the runtime itself; a generous guess.
WORKING_BYTES = int(1.0 * GIB)
# What memories are sold with, in GB; a tenth is the system's and the driver's.
CAPACITIES_GB = (4, 6, 8, 10, 12, 16, 24, 32, 48, 64, 80, 96, 128)
USABLE = 0.9
VOCODER = Path("assets") / "token2wav"


@dataclass(frozen=True)
class Part:
    """One part of the network: its tensors and parameters, and bytes in each of PRECISIONS."""

    name: str
    tensors: int
    parameters: int
    bytes: dict[str, int]


@dataclass(frozen=True)
class Need:
    """Memory to run at one precision, in bytes."""

    precision: str
    weights: int
    kv: int
    vocoder: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.vocoder + WORKING_BYTES

    @property
    def capacity_gb(self) -> int | None:
        """The smallest memory on the market that holds it, or None."""
        return next((gb for gb in CAPACITIES_GB if gb * 1e9 * USABLE >= self.total), None)


def parts_of(checkpoint: Checkpoint) -> list[Part]:
    """The parts in the order of the data; what nothing computes with is left out."""
    found = []
    for prefix, name in PARTS.items():
        entries = {
            key: entry
            for key, entry in checkpoint.entries.items()
            if key.startswith(prefix) and not is_unused(key)
        }
        if not entries:  # a checkpoint may have no speech decoder
            continue
        sizes = {p: sum(_bytes(k, e, p) for k, e in entries.items()) for p in PRECISIONS}
        parameters = sum(entry.parameters for entry in entries.values())
        found.append(Part(name, len(entries), parameters, sizes))
    return found


def packed_matrices(checkpoint: Checkpoint) -> tuple[int, int]:
    """How many matrices AutoAWQ has packed into four bits, and their bytes in the files."""
    found = [entry for entry in checkpoint.entries.values() if isinstance(entry, PackedEntry)]
    return len(found), sum(entry.bytes for entry in found)


def kv_bytes(llm: LlmConfig, tokens: int, precision: str) -> int:
    """The LLM's KV cache; it is bf16 unless all is fp32."""
    return llm.kv_values_per_token * tokens * (4 if precision == "fp32" else 2)


def needs(checkpoint: Checkpoint, context_tokens: int) -> list[Need]:
    """What running takes at each precision with so many tokens of context."""
    parts = parts_of(checkpoint)
    vocoder = sum(size for _, size in vocoder_files(checkpoint.directory))
    return [
        Need(
            precision,
            weights=sum(part.bytes[precision] for part in parts),
            kv=kv_bytes(checkpoint.config.llm, context_tokens, precision),
            vocoder=vocoder,
        )
        for precision in PRECISIONS
    ]


def vocoder_files(directory: Path) -> list[tuple[str, int]]:
    """Names and bytes of the vocoder's files."""
    folder = directory / VOCODER
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [(file.name, file.stat().st_size) for file in files if file.is_file()]


def memories() -> dict[str, int]:
    """Bytes of memory on this machine: its own, and each GPU's."""
    found = {"main memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")}
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found[f"GPU {number} ({properties.name})"] = properties.total_memory
    return found


def _bytes(key: str, entry: Entry, precision: str) -> int:
    if precision == "int4" and not _INT4.fullmatch(key):
        precision = "bf16"
    return round(entry.parameters * PRECISIONS[precision])

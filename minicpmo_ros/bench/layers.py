"""Layers of the language model in four bits and its head, against a read of their bytes, torch and
llama.cpp; and a token of the whole model, reckoned from them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from minicpmo_ros.bench import llamacpp
from minicpmo_ros.bench.random_network import random_stage
from minicpmo_ros.bench.random_pieces import write_random
from minicpmo_ros.bench.stages import layer_parameters
from minicpmo_ros.bench.turn_about import turn_about
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.decoder import Decoder
from minicpmo_ros.runtime.engines.pieces import Piece
from minicpmo_ros.runtime.ort.stages import OrtCachedStage, OrtStage

LAYERS = 4  # that are made to time one
PAST = 512  # tokens that are read before
PREFILL = 74  # a unit with one picture
Times = dict[str, float]


def layer_ms(config: ModelConfig, threads: int, rounds: int = 9) -> Times:
    """Time of a layer, ms: "decode.ours", "decode.read", "decode.torch bf16", "prefill.ours" and so
    on; "llama.cpp" where it is installed. The read is of the weights, and of the keys and values of
    PAST tokens. Of LAYERS layers the last has the final norm."""
    few = replace(config, llm=replace(config.llm, layers=LAYERS))
    llm = few.llm
    embeds = np.random.default_rng(0).standard_normal((PAST + PREFILL, llm.hidden))
    embeds = embeds.astype(np.float32)
    piece = Piece("llm.00", "onnxruntime", "int4", layers=(0, LAYERS))
    found: Times = {}
    with tempfile.TemporaryDirectory(prefix="minicpmo_bench_") as folder, ExitStack() as stack:
        (file,) = write_random(few, [piece], Path(folder)).values()
        ours = OrtCachedStage([(file, LAYERS)], llm.kv_heads, llm.head_dim, llm.rope_theta, threads)
        cache = ours.cache(PAST + PREFILL)
        ours.step({"embeds": embeds[:PAST]}, cache, 0, PAST)
        theirs = _torch(few, torch.bfloat16, embeds)
        in_use = llm.kv_values_per_token * PAST * embeds.itemsize  # as our cache has them
        block = _block(piece.nbytes(few) + in_use)
        other = None
        if llamacpp.missing() is None:
            other = stack.enter_context(llamacpp.LlamaCpp(llm, PAST, PREFILL, threads))
        for name, rows in (("decode", 1), ("prefill", PREFILL)):
            works: dict[str, Callable[[], object]] = {
                "ours": lambda rows=rows: ours.step(  # type: ignore[misc]
                    {"embeds": embeds[:rows]}, cache, PAST, rows
                ),
                "torch bf16": lambda rows=rows: theirs(rows),  # type: ignore[misc]
            }
            if rows == 1:
                works["read"] = block.sum
            if other is not None:
                works["llama.cpp"] = lambda rows=rows: other.prefill(rows)  # type: ignore[misc]
            times = turn_about(works, rounds)
            found |= {f"{name}.{way}": ms / LAYERS for way, ms in times.items()}
    return found


def head_ms(config: ModelConfig, piece: Piece, file: Path, threads: int, rounds: int = 9) -> Times:
    """Time of the head, hidden state to logits, ms: "ours", "read", "torch bf16".

    Args:
        piece: "llm.head" of a recipe for onnxruntime on a CPU. file: of it.
    """
    llm = config.llm
    hidden = np.random.default_rng(0).standard_normal((1, llm.hidden)).astype(np.float32)
    given = torch.from_numpy(hidden).to(torch.bfloat16)
    ours = OrtStage(file, threads)
    # Only what lies below a module is packed for the processor.
    theirs = random_stage(
        lambda: nn.Sequential(nn.Linear(llm.hidden, llm.vocab, bias=False)),
        torch.bfloat16,
        torch.device("cpu"),
    )
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.run({"hidden": hidden}),
        "torch bf16": lambda: theirs(given).to(torch.float32),
        "read": _block(piece.nbytes(config)).sum,
    }
    return turn_about(works, rounds)


def model_ms(config: ModelConfig, layers: Times, head: Times) -> dict[str, Times]:
    """A token of the whole language model, by way: "layers", "head" and "token" in ms, "rate" in
    tokens a second. Reckoned: all layers take as long as those of `layer_ms`, and a way's head that
    was not measured as long as its layers with as many weights."""
    share = config.llm.vocab * config.llm.hidden / layer_parameters(config)
    found = {}
    for way in ("ours", "read", "torch bf16", "llama.cpp"):
        if (layer := layers.get(f"decode.{way}")) is None:
            continue
        end = head.get(way, layer * share)
        token = config.llm.layers * layer + end
        found[way] = {
            "layers": config.llm.layers * layer,
            "head": end,
            "token": token,
            "rate": 1e3 / token,
        }
    return found


def _block(nbytes: int) -> torch.Tensor:
    """Memory to be read."""
    return torch.ones(max(nbytes // 8, 1), dtype=torch.int64)


def _torch(
    config: ModelConfig, dtype: torch.dtype, embeds: np.ndarray
) -> Callable[[int], torch.Tensor]:
    """Reads so many rows behind PAST."""
    decoder = random_stage(lambda: Decoder(config.llm, norm_heads=True), dtype, torch.device("cpu"))
    cache = decoder.cache(PAST + PREFILL)
    given = torch.from_numpy(embeds).to(dtype)
    decoder.extend(given[:PAST], cache)

    def read(rows: int) -> torch.Tensor:
        cache.truncate(PAST)
        return decoder.extend(given[:rows], cache)

    return read

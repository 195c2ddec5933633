"""A whole network from files, in a process of its own without torch: its memory and its units.

    python -m minicpmo_ros.bench.whole SPEC.json

prints one line of JSON: figures by name.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from minicpmo_ros.bench.noise import random_tokenizer
from minicpmo_ros.bench.units import unit_ms
from minicpmo_ros.duplex.config import DuplexConfig, WindowConfig
from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.host_memory import peak_bytes
from minicpmo_ros.runtime.engines.pieces import GRAPH_FILE, pieces
from minicpmo_ros.runtime.load import assemble


def least_tokens(config: ModelConfig, units: int) -> int:
    """Of context, for a prompt and so many units with a picture each."""
    return 80 + units * (config.resampler.queries + 2 + 10 + 12)


def measure(spec: dict[str, Any]) -> dict[str, float]:
    """Load, read a prompt that leaves room for the units alone, and live through some units.

    spec: config (as config.json), recipe (as a file), folder (a folder a piece), units, tokens (of
    context that are in use at the end), threads.
    """
    sizes = ModelConfig.from_json(spec["config"])
    wanted = recipe.of(spec["recipe"])
    folder = Path(spec["folder"])
    files = {
        piece: folder / piece.name / ("" if piece.is_table else GRAPH_FILE)
        for piece in pieces(sizes, wanted)
    }
    tokenizer = random_tokenizer(sizes.llm.vocab)
    begun = peak_bytes()
    began = time.perf_counter()
    network = assemble(sizes, wanted, files, spec["threads"])
    loading_s = time.perf_counter() - began
    loaded = peak_bytes()
    tokens, units = spec["tokens"], spec["units"]
    prompt = tokens - least_tokens(sizes, units)
    began = time.perf_counter()
    config = DuplexConfig(
        window=WindowConfig("off"), kv_capacity=tokens + 512, forced_listens=0, max_slices=1
    )
    found = unit_ms(network, tokenizer, units, config, _tell, prompt)
    peak, living_s = peak_bytes(), time.perf_counter() - began
    sounds: dict[str, float] = {}
    # As a robot speaks without a vocoder: no codes, but its words by espeak-ng, where that is.
    with suppress(DeviceError):
        speak = Synthesiser().speak
        worded = replace(config, speaks=False)
        sounds = unit_ms(network, tokenizer, units, worded, _tell, prompt, speak)
    return {
        **{f"unit.{name}": value for name, value in found.items()},
        **{f"unit.{name}": value for name, value in sounds.items() if "first_sound" in name},
        "rss.begun": begun,
        "rss.loaded": loaded,
        "rss.peak": peak,
        "loading_s": loading_s,
        "living_s": living_s,
        "prompt": prompt,
        "torch": float("torch" in sys.modules),
    }


def _tell() -> None:
    print("unit", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(Path(sys.argv[1]).read_text()))))

"""A whole network from files, in a process of its own without torch: its memory and its units; or,
with a vocoder, its first sounds.

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
from types import SimpleNamespace
from typing import Any

from minicpmo_ros.bench.noise import random_tokenizer
from minicpmo_ros.bench.process import tick
from minicpmo_ros.bench.speech_turns import random_voice
from minicpmo_ros.bench.units import unit_ms
from minicpmo_ros.duplex.config import DuplexConfig, WindowConfig
from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.runtime.api import Network
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.host_memory import peak_bytes
from minicpmo_ros.runtime.engines.pieces import GRAPH_FILE, pieces
from minicpmo_ros.runtime.load import assemble
from minicpmo_ros.runtime.vocoder import VoiceVocoder, load_vocoder


def least_tokens(config: ModelConfig, units: int) -> int:
    """Of context, for a prompt and so many units with a picture each."""
    return 80 + units * (config.resampler.queries + 2 + 10 + 12)


def measure(spec: dict[str, Any]) -> dict[str, float]:
    """Load, read a prompt that leaves room for the units alone, and live through some units.

    spec: config (as config.json), recipe (as a file), folder (a folder a piece), units, tokens (of
    context that are in use at the end), threads.
    """
    begun = peak_bytes()
    began = time.perf_counter()
    network = _assembled(spec)
    loading_s = time.perf_counter() - began
    loaded = peak_bytes()
    config, prompt = _config(spec), _prompt(network.config, spec)
    tokenizer = random_tokenizer(network.config.llm.vocab)
    began = time.perf_counter()
    found = unit_ms(network, tokenizer, spec["units"], config, tick, prompt)
    peak, living_s = peak_bytes(), time.perf_counter() - began
    sounds: dict[str, float] = {}
    # As a robot speaks without a vocoder: no codes, but its words by espeak-ng, where that is.
    with suppress(DeviceError):
        speak = Synthesiser().speak
        worded = replace(config, speaks=False)
        sounds = unit_ms(network, tokenizer, spec["units"], worded, tick, prompt, speak)
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


def measure_own_voice(spec: dict[str, Any]) -> dict[str, float]:
    """The same life with a vocoder, which takes memory that is not to be counted in `measure`.

    spec: as there, and assets (a directory with those of a vocoder, built in the cache that
    MINICPMO_ENGINES names), voice (tokens of the voice that it speaks in).

    Returns:
        unit.first_own_sound and unit.first_own_sound_early, ms; rss.peak in bytes, torch (1 if it
        was loaded).
    """
    network = _assembled(spec)
    wanted = recipe.of(spec["recipe"])
    speech = load_vocoder(spec["assets"], recipe=wanted, threads=spec["threads"])
    voice = random_voice(speech.flow.config, spec["voice"])
    # Not a `ReferenceVoice`, which has the published sizes alone.
    named: Any = SimpleNamespace(tokens=voice.tokens, mel=voice.mel, speaker=voice.voice)
    found = unit_ms(
        network,
        random_tokenizer(network.config.llm.vocab),
        spec["units"],
        _config(spec),
        tick,
        _prompt(network.config, spec),
        vocoder=VoiceVocoder(speech, named, steps=wanted.vocoder.steps),
    )
    return {
        **{f"unit.{name}": value for name, value in found.items() if "first_own" in name},
        "rss.peak": peak_bytes(),
        "torch": float("torch" in sys.modules),
    }


def _assembled(spec: dict[str, Any]) -> Network:
    sizes = ModelConfig.from_json(spec["config"])
    wanted = recipe.of(spec["recipe"])
    folder = Path(spec["folder"])
    files = {
        piece: folder / piece.name / ("" if piece.is_table else GRAPH_FILE)
        for piece in pieces(sizes, wanted)
    }
    return assemble(sizes, wanted, files, spec["threads"])


def _config(spec: dict[str, Any]) -> DuplexConfig:
    capacity = spec["tokens"] + 512
    window = WindowConfig("off")
    return DuplexConfig(window=window, kv_capacity=capacity, forced_listens=0, max_slices=1)


def _prompt(sizes: ModelConfig, spec: dict[str, Any]) -> int:
    """Tokens of it, so that with the units all are in use."""
    prompt: int = spec["tokens"] - least_tokens(sizes, spec["units"])
    return prompt


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps((measure_own_voice if "assets" in given else measure)(given)))

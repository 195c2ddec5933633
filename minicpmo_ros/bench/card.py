"""The network in torch on a card: times, share of its memory's speed, real-time factor."""

from __future__ import annotations

from collections.abc import Callable

import torch

from minicpmo_ros.bench.figures import Figure
from minicpmo_ros.bench.memory import peak_bytes, restart_peak
from minicpmo_ros.bench.noise import noise_picture, noise_sound, random_tokenizer
from minicpmo_ros.bench.random_network import random_stage
from minicpmo_ros.bench.stages import PAST, read_ms, repeat
from minicpmo_ros.bench.units import unit_ms
from minicpmo_ros.duplex.config import DuplexConfig
from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.packed import size_of
from minicpmo_ros.model.picture import slices
from minicpmo_ros.model.speech import SpeechDecoder
from minicpmo_ros.model.vision import VisionStage
from minicpmo_ros.runtime.torch_int4 import check_device, to_int4
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

# llama.cpp-omni's real-time factor on an RTX 4090, and what the model's authors publish for INT4.
ANCHORS = {"rtf": 0.21, "tokens_per_s": 212.0, "gb": 11.0}
PREFILL = 74
UNITS = 16


def measure(
    config: ModelConfig,
    device: torch.device,
    precision: str,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Times in ms, bytes, and shares, by name.

    Args:
        precision: bf16, or int4 (of the language model).
    """
    restart_peak()
    network = _random(config, device, precision)
    llm = network.stages["llm"]
    assert isinstance(llm, Llm)
    context = network.context(PAST + PREFILL)
    random = torch.randn(PAST + PREFILL, config.llm.hidden)
    embeds = random.to(device=device, dtype=llm.model.norm.weight.dtype)
    context.read(embeds[:PAST])
    state: dict[str, object] = {}

    def read(rows: int) -> Callable[[], object]:
        def work() -> None:
            context.truncate(PAST)
            state["hidden"] = context.read(embeds[:rows])

        return work

    def token() -> None:
        read(1)()
        context.logits(state["hidden"])  # type: ignore[arg-type]

    weights = size_of(llm) - llm.model.embed_tokens.weight.nbytes
    kv = context.nbytes * PAST // context.capacity
    shown = slices(noise_picture(0), 1, config.slices)
    ears, second = network.ears(), noise_sound(1)
    found = {
        "token_ms": repeat(token, device),
        "read_ms": read_ms(weights + kv, device),
        "prefill_ms": repeat(read(PREFILL), device),
        "vision_ms": repeat(lambda: network.look(shown), device),
        "audio_ms": repeat(lambda: ears.step(second), device),
    }
    advance()
    tokenizer = random_tokenizer(config.llm.vocab)
    times = unit_ms(network, tokenizer, UNITS, DuplexConfig(forced_listens=0), advance)
    found |= {f"unit_{name}_ms": value for name, value in times.items() if name != "loop_percent"}
    found["peak_gb"] = peak_bytes(device) / 1e9
    return found


def figures(found: dict[str, float], name: str) -> list[Figure]:
    """name: of the precision."""
    of_memory = found["read_ms"] / found["token_ms"]
    rtf = max(found["unit_speak_ms"], found["unit_listen_ms"]) / 1000.0
    made = [Figure(f"engines.cuda.{name}.{key}", value) for key, value in found.items()]
    return [
        *made,
        Figure.at_least(f"engines.cuda.{name}.share_of_memory_speed", of_memory, 0.6),
        Figure(
            f"engines.cuda.{name}.tokens_per_s",
            1000.0 / found["token_ms"],
            "1/s",
            f"(authors, RTX 4090: {ANCHORS['tokens_per_s']:g})",
        ),
        Figure(
            f"engines.cuda.{name}.rtf", rtf, "", f"(llama.cpp-omni, RTX 4090: {ANCHORS['rtf']:g})"
        ),
    ]


def _random(config: ModelConfig, device: torch.device, precision: str) -> TorchNetwork:
    """A network with random weights."""
    dtype = torch.bfloat16
    llm = random_stage(lambda: Llm(config.llm), dtype, device, packed=precision != "int4")
    if precision == "int4":
        check_device(device)
        to_int4(llm)
    return TorchNetwork(
        config,
        random_stage(lambda: VisionStage(config.vision, config.resampler), dtype, device),
        random_stage(lambda: Audio(config.audio), dtype, device),
        llm,
        random_stage(lambda: SpeechDecoder(config.speech_sizes()), dtype, device),
    )

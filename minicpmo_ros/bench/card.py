"""The network on a card: times, share of its memory's speed, real-time factor; in torch here, as a
recipe builds it in `built`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from minicpmo_ros.runtime.api import Network, Rows
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
    """Times in ms, see `network_ms`, and peak_gb.

    Args:
        precision: bf16, or int4 (of the language model).
    """
    restart_peak()
    network = _random(config, device, precision)
    llm = network.stages["llm"]
    assert isinstance(llm, Llm)
    embeds = torch.randn(PAST + PREFILL, config.llm.hidden)
    given = embeds.to(device=device, dtype=llm.model.norm.weight.dtype)
    weights = size_of(llm) - llm.model.embed_tokens.weight.nbytes
    found = network_ms(network, given, weights, device, DuplexConfig(forced_listens=0), advance)
    found["peak_gb"] = peak_bytes(device) / 1e9
    return found


def network_ms(
    network: Network,
    embeds: Any,
    weights: int,
    device: torch.device | None,
    config: DuplexConfig,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Times in ms, by name: of a token behind PAST others, of a read of what it reads, of PREFILL
    tokens, a picture, a second of sound, and units.

    Args:
        embeds: [PAST + PREFILL, hidden], as the network's contexts read them.
        weights: bytes that a token reads of them.
        device: whose memory is read; None: torch does not reach it, and the read is left out.
        config: of the units.
    """
    context = network.context(PAST + PREFILL)
    context.read(embeds[:PAST])
    state: dict[str, Rows] = {}
    waits = device or torch.device("cpu")

    def read(rows: int) -> Callable[[], object]:
        def work() -> None:
            context.truncate(PAST)
            state["hidden"] = context.read(embeds[:rows])

        return work

    def token() -> None:
        read(1)()
        context.logits(state["hidden"])

    kv = context.nbytes * PAST // context.capacity
    shown = slices(noise_picture(0), 1, network.config.slices)
    ears, second = network.ears(), noise_sound(1)
    found = {"token_ms": repeat(token, waits)}
    if device is not None:
        found["read_ms"] = read_ms(weights + kv, device)
    found |= {
        "prefill_ms": repeat(read(PREFILL), waits),
        "vision_ms": repeat(lambda: network.look(shown), waits),
        "audio_ms": repeat(lambda: ears.step(second), waits),
    }
    advance()
    tokenizer = random_tokenizer(network.config.llm.vocab)
    times = unit_ms(network, tokenizer, UNITS, config, advance)
    return found | {f"unit_{name}_ms": ms for name, ms in times.items() if name != "loop_percent"}


def figures(found: dict[str, float], name: str, full: bool = True) -> list[Figure]:
    """Those of one network, beside what others measured of theirs.

    Args:
        found: of `network_ms`, and what else was measured; "peak_gb" is memory of the card.
        name: what figures' names begin with.
        full: it has the published sizes, for which the goals are.
    """
    notes = {"peak_gb": f"(authors, int4: {ANCHORS['gb']:g})"}
    made = [
        Figure(f"{name}.{key}", value, _unit(key), notes.get(key, ""))
        for key, value in found.items()
    ]
    if "read_ms" in found:
        share, of_memory = f"{name}.share_of_memory_speed", found["read_ms"] / found["token_ms"]
        made.append(Figure.at_least(share, of_memory, 0.6) if full else Figure(share, of_memory))
    rate, anchor = 1000.0 / found["token_ms"], f"{ANCHORS['tokens_per_s']:g}"
    rtf = max(found["unit_speak_ms"], found["unit_listen_ms"]) / 1000.0
    return [
        *made,
        Figure(f"{name}.tokens_per_s", rate, "1/s", f"(authors, RTX 4090: {anchor})"),
        Figure(f"{name}.rtf", rtf, "", f"(llama.cpp-omni, RTX 4090: {ANCHORS['rtf']:g})"),
    ]


def _unit(key: str) -> str:
    return {"ms": "ms", "gb": "GB", "s": "s"}.get(key.rsplit("_", 1)[-1], "")


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

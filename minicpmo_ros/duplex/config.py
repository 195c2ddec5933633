"""How a conversation runs. Defaults are those of the published demo, save where a line says why."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

from minicpmo_ros.duplex.vocoding import CHUNKS, checked_chunks
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.part_configs import SamplingConfig

# (low, high) of each number; both may be reached.
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (1e-6, 10),
    "top_k": (0, 10_000),
    "top_p": (0.01, 1),
    "repetition": (0.5, 4),
    "repetition_window": (0, 100_000),
    "length_penalty": (0.1, 10),
    "listen_scale": (1e-3, 1e3),
    "listen_top_k": (0, 10_000),
    "high_tokens": (1, 1_000_000),
    "low_tokens": (0, 1_000_000),
    "max_units": (1, 100_000),
    "previous_tokens": (0, 100_000),
    "kv_capacity": (128, 1_000_000),
    "tokens_per_unit": (2, 1_000),
    "characters_per_unit": (1, 10_000),
    "forced_listens": (0, 1_000),
    "max_slices": (1, 100),
    "max_pictures": (0, 1_000),
    "speech_temperature": (1e-6, 10),
    "speech_repetition": (0.5, 4),
    "audio_overlap_s": (0, 14),
    "speech_lead_ms": (0, 5_000),
}


def _check(config: Any) -> None:
    for one in fields(config):
        value = getattr(config, one.name)
        if one.name not in _RANGES or value is None:
            continue
        low, high = _RANGES[one.name]
        whole = "float" not in one.type
        kinds = int if whole else (int, float)
        if not (isinstance(value, kinds) and math.isfinite(value) and low <= value <= high):
            kind = "be a whole number" if whole else "lie"
            raise ConfigError(f"{one.name}={value!r}: must {kind} between {low:g} and {high:g}")


@dataclass(frozen=True)
class SamplerConfig:
    """How tokens of text and control are drawn.

    greedy: take the likeliest instead of drawing. top_k: 0 keeps all. repetition: what tokens of
    the last `repetition_window` are penalised by. length_penalty: above 1, the model ends its turns
    later. listen_scale: the probability of listening is multiplied by it. listen_top_k: listen
    whenever that is among so many likeliest tokens; 0: never for this reason.

    Raises:
        ConfigError: a value is out of its range.
    """

    greedy: bool = False
    temperature: float = 0.7
    top_k: int = 20
    top_p: float = 0.8
    repetition: float = 1.05
    repetition_window: int = 512
    length_penalty: float = 1.1
    listen_scale: float = 1.0
    listen_top_k: int = 0

    def __post_init__(self) -> None:
        _check(self)

    def of(self, sampling: SamplingConfig) -> SamplerConfig:
        """For a checkpoint: one that is not to be sampled is decoded greedily, and nothing that it
        says is penalised."""
        if sampling.samples:
            return self
        return replace(self, greedy=True, repetition=1.0, length_penalty=1.0)


@dataclass(frozen=True)
class WindowConfig:
    """What is forgotten as a conversation goes on.

    mode: off (the session ends when the cache is full); basic (above `high_tokens`, the oldest
    units go until there are at most `low_tokens`); context (more than `max_units` units: the oldest
    go, but what the robot said in them stays in the prompt, its last `previous_tokens`).

    Raises:
        ConfigError: a value is out of its range, or low_tokens is above high_tokens.
    """

    mode: str = "basic"
    high_tokens: int = 4000
    low_tokens: int = 3500
    max_units: int = 24
    previous_tokens: int = 500

    def __post_init__(self) -> None:
        _check(self)
        if self.mode not in ("off", "basic", "context"):
            raise ConfigError(f"window '{self.mode}': there are off, basic, context")
        if self.low_tokens > self.high_tokens:
            raise ConfigError(
                f"low_tokens={self.low_tokens} is above high_tokens={self.high_tokens};"
                " the window slides from high to low"
            )


@dataclass(frozen=True)
class DuplexConfig:
    """A conversation in units of one second.

    kv_capacity: tokens that the language model's cache holds. tokens_per_unit: steps of a unit's
    loop, the last of which only ends it. characters_per_unit: text of a unit stays below.
    forced_listens: the first units only listen. max_slices: of a picture, 0 pictures or more a unit
    and at most max_pictures; None: as the checkpoint says. speaks: speech codes are made.
    speech_temperature, speech_repetition: how those are drawn. speech_chunks: see
    `vocoding.CodeStream`. speech_lead_ms: silence before a turn that goes on beyond its first unit.
    forgets_unheard: of a turn that is cut off, only what was heard is remembered. audio_overlap_s:
    seconds that the audio encoder remembers at least when it has heard more than 29 s; 0 forgets
    all then, as the reference does.
    reference_compat: also do what are plain mistakes of the reference (docs/model.md).

    Raises:
        ConfigError: a value is out of its range, or the window does not fit into the cache.
    """

    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    kv_capacity: int = 8192
    tokens_per_unit: int = 20
    characters_per_unit: int = 28
    forced_listens: int = 3
    max_slices: int | None = None
    max_pictures: int = 32
    speaks: bool = True
    speech_temperature: float = 0.8
    speech_repetition: float = 1.05
    speech_chunks: tuple[int, ...] = CHUNKS
    speech_lead_ms: int = 280
    forgets_unheard: bool = True
    audio_overlap_s: int = 10
    reference_compat: bool = False

    def __post_init__(self) -> None:
        _check(self)
        checked_chunks(self.speech_chunks)
        window = self.window
        if window.mode == "basic" and window.high_tokens > self.kv_capacity:
            raise ConfigError(
                f"the window lets {window.high_tokens} tokens come together, the KV cache holds"
                f" {self.kv_capacity}; lower high_tokens or raise kv_capacity"
            )

"""Settings of a conversation: what is refused, and what is said then."""

from __future__ import annotations

import pytest

from minicpmo_ros.duplex.config import DuplexConfig, SamplerConfig, WindowConfig
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.part_configs import SamplingConfig


@pytest.mark.parametrize(
    "kind, field, values",
    [
        (SamplerConfig, "temperature", [0.0, -1.0, float("nan"), float("inf"), "warm"]),
        (SamplerConfig, "top_k", [-1, 2.5]),
        (SamplerConfig, "top_p", [0.0, 1.01]),
        (SamplerConfig, "listen_scale", [0.0]),
        (WindowConfig, "max_units", [0, 1.5]),
        (DuplexConfig, "tokens_per_unit", [1, 7.5, "20"]),
        (DuplexConfig, "kv_capacity", [0, 8192.0]),
        (DuplexConfig, "max_slices", [0]),
        (DuplexConfig, "audio_overlap_s", [-1, 15]),
    ],
)
def test_what_is_out_of_range_is_named(kind, field, values):
    for value in values:
        with pytest.raises(ConfigError, match=rf"{field}=.*between"):
            kind(**{field: value})


def test_the_ends_of_a_range_are_taken():
    assert SamplerConfig(top_k=0, top_p=1).top_p == 1
    assert DuplexConfig(max_slices=None, max_pictures=0, forced_listens=0).max_slices is None


def test_windows_that_cannot_slide_are_refused():
    with pytest.raises(ConfigError, match="off, basic, context"):
        WindowConfig("sliding")
    WindowConfig(high_tokens=10, low_tokens=10)
    with pytest.raises(ConfigError, match="low_tokens=11 is above high_tokens=10"):
        WindowConfig(high_tokens=10, low_tokens=11)
    with pytest.raises(ConfigError, match="4000 tokens come together, the KV cache holds 2048"):
        DuplexConfig(kv_capacity=2048)
    DuplexConfig(kv_capacity=2048, window=WindowConfig("context"))


def test_a_checkpoint_may_say_that_it_is_not_to_be_sampled():
    config = SamplerConfig(temperature=0.9, listen_scale=2.0)
    assert config.of(SamplingConfig()) is config
    greedy = config.of(SamplingConfig(samples=False))
    assert greedy.greedy and greedy.repetition == greedy.length_penalty == 1.0
    assert greedy.listen_scale == 2.0

"""config.json: every size is read from it, and what cannot be used is said by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tiny import config_json

QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096}
OMNI_26 = {
    "model_type": "minicpmo",
    "architectures": ["MiniCPMO"],
    "version": "2.6",
    "hidden_size": 3584,
    "tts_config": {"llm_dim": 3584, "model_type": "conditional_chattts"},
}


def test_the_published_sizes() -> None:
    config = ModelConfig.from_json(config_json("full"))
    assert (config.llm.hidden, config.llm.layers, config.llm.head_dim) == (4096, 36, 128)
    assert config.llm.kv_values_per_token * 2 == 144 * 1024  # bytes a token in bf16
    assert (config.vision.layers, config.vision.side) == (27, 70)
    assert config.resampler.heads == 32
    assert (config.audio.hidden, config.audio.layers, config.audio.mels) == (1024, 24, 80)
    assert (config.speech.head_dim, config.speech.eos) == (64, 6561)
    assert (config.speech.audio_bos, config.speech.text_eos) == (151687, 151692)


@pytest.mark.parametrize("size", ["tiny", "wide", "quarter"])
def test_every_size_follows_the_file(size: str) -> None:
    published, other = ModelConfig.from_json(config_json("full")), config_json(size, 2000)
    config = ModelConfig.from_json(other)
    assert config.llm.hidden == other["hidden_size"] != published.llm.hidden
    assert config.audio.llm_hidden == config.speech.llm_hidden == config.resampler.hidden
    assert config.resampler.hidden == config.llm.hidden
    assert config.resampler.kv_hidden == config.vision.hidden
    assert config.llm.vocab == 2000


def test_what_equals_the_published_class_default_may_be_left_out() -> None:
    given = config_json("full")
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        del given["tts_config"][name]
    for name in ("num_mel_bins", "max_source_positions"):
        del given["audio_config"][name]
    del given["slice_config"], given["head_dim"], given["query_num"]
    assert ModelConfig.from_json(given) == ModelConfig.from_json(config_json("full"))


def test_rope_may_be_written_as_by_transformers_5() -> None:
    given = config_json()
    theta = given.pop("rope_theta")
    given["rope_parameters"] = {"rope_theta": theta, "rope_type": "default"}
    assert ModelConfig.from_json(given).llm.rope_theta == 1e6


def test_a_dropped_last_layer_of_vision_is_not_counted() -> None:
    given = config_json()
    given["drop_vision_last_layer"] = True
    assert ModelConfig.from_json(given).vision.layers == 1


def test_settings_of_pictures_and_of_chat_come_from_their_own_files() -> None:
    config = ModelConfig.from_json(
        config_json(),
        preprocessor={"max_slice_nums": 4, "norm_mean": [0.1, 0.2, 0.3]},
        generation={"temperature": 0.3, "eos_token_id": 7},
    )
    assert (config.slices.max_slices, config.slices.chat_max_slices) == (1, 4)
    assert config.slices.mean == (0.1, 0.2, 0.3)
    assert (config.sampling.temperature, config.sampling.eos) == (0.3, (7,))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (QWEN3, r"'qwen3' \(Qwen3ForCausalLM\).*runs MiniCPM-o 4\.5"),
        ({"model_type": "minicpmv", "architectures": ["MiniCPMV"]}, "'minicpmv'"),
        (OMNI_26, r"MiniCPM-o 2\.6"),
        ({k: v for k, v in OMNI_26.items() if k != "version"}, r"MiniCPM-o 2\.6"),
        (config_json() | {"quantization_config": {"quant_method": "gptq"}}, "with gptq"),
        ({}, "model_type None"),
    ],
)
def test_a_foreign_config_is_named(given: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        ModelConfig.from_json(given)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_hidden_layers": 0}, r"llm\.layers is 0"),
        ({"num_key_value_heads": 3}, "not a multiple of kv_heads, 3"),
        ({"hidden_size": 100}, "multiple of 128"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "'yarn'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"tts_config": config_json()["tts_config"] | {"llm_dim": 64}}, "llm_dim is 64"),
        ({"tts_config": config_json()["tts_config"] | {"num_vq": 4}}, "num_vq is 4"),
        ({"tts_config": config_json("tiny", 500)["tts_config"] | {"audio_bos_token_id": 9999}},
         "9999"),
        ({"vision_config": {"hidden_size": 10, "num_attention_heads": 3}}, "not a multiple"),
        ({"audio_config": "whisper"}, "audio_config is 'whisper'"),
    ],
)  # fmt: skip
def test_a_field_of_no_use_is_named_with_its_value(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        ModelConfig.from_json(config_json() | changed)


def test_a_directory_without_a_usable_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json.*checkpoint fetch"):
        ModelConfig.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config_json())[:100])
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        ModelConfig.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="not an object"):
        ModelConfig.load(tmp_path)

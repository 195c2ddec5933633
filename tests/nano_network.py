"""A random checkpoint like the nano one that ships: no speech decoder, and sizes of which blocks of
128 do not divide all. For the rooms whose tests need it: they import this fixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def nano_json(layers: int = 2) -> dict[str, Any]:
    """Its config.json: widths of 256 (language model), 160 (sound) and 96 (pictures)."""
    from minicpmo_ros.model.tiny import config_json

    config = config_json("tiny", 1024)
    del config["tts_config"]
    config |= {"init_tts": False, "hidden_size": 256, "intermediate_size": 512, "query_num": 16}
    config |= {"num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2}
    config |= {"head_dim": 64}
    config["vision_config"] |= {"hidden_size": 96, "intermediate_size": 384, "image_size": 224}
    config["audio_config"] |= {"d_model": 160, "encoder_ffn_dim": 640}
    return config


@pytest.fixture(scope="session")
def nano_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only to be read."""
    from minicpmo_ros.model.tiny import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small", size=nano_json())

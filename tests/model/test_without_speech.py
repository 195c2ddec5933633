"""A checkpoint without a speech decoder: config.json says init_tts false."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model import contents
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.layout import shapes
from minicpmo_ros.model.tiny import config_json
from minicpmo_ros.model.weight_files import SINGLE
from tests.nano_network import nano_checkpoint, nano_json

__all__ = ["nano_checkpoint"]


def test_it_has_no_sizes_of_speech_and_says_so() -> None:
    config = ModelConfig.from_json(nano_json())
    assert config.speech is None
    with pytest.raises(CheckpointError, match=r"no speech decoder.*init_tts is false"):
        config.speech_sizes()
    assert not [key for key in shapes(config) if key.startswith("tts.")]


@pytest.mark.parametrize("says", [{}, {"init_tts": True}])
def test_there_is_one_unless_the_config_says_not(says: dict[str, bool]) -> None:
    config = ModelConfig.from_json(config_json() | says)
    assert config.speech_sizes() is config.speech is not None
    assert [key for key in shapes(config) if key.startswith("tts.")]


def test_whether_there_is_one_is_true_or_false() -> None:
    with pytest.raises(CheckpointError, match="init_tts is 'no', neither true nor false"):
        ModelConfig.from_json(config_json() | {"init_tts": "no"})


def test_it_is_whole_without_tensors_of_speech(nano_checkpoint: Path) -> None:
    opened = Checkpoint(nano_checkpoint)
    assert opened.config.speech is None
    parts = [part.name for part in contents.parts_of(opened)]
    assert "audio encoder" in parts and "speech decoder" not in parts


def test_tensors_of_speech_have_no_place_in_it(nano_checkpoint: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(nano_checkpoint, tmp_path / "own"))
    weights = load_file(own / SINGLE) | {"tts.emb_text.weight": torch.zeros(3, 4)}
    save_file(weights, own / SINGLE)
    with pytest.raises(CheckpointError, match=r"1 unexpected: tts\.emb_text\.weight"):
        Checkpoint(own)
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"init_tts": True}))
    with pytest.raises(CheckpointError, match=r"llm_dim is 2560"):  # tts_config's own default
        Checkpoint(own)

"""The nano checkpoint's sizes, its tokenizer and its settings: all of it but the weights."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.media.world.things import COLOURS, KINDS, PLACES, Thing
from minicpmo_ros.model import prompts, tiny_tokenizer
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.nano import answers
from minicpmo_ros.nano.answers import Memory, Slots, View, Watch
from minicpmo_ros.nano.wordings import NUMBERS, WORDS

VOCAB = 768


def config_json() -> dict[str, Any]:
    """In the words of the published config.json. There is no speech decoder."""
    return {
        "model_type": "minicpmo",
        "architectures": ["MiniCPMO"],
        "vocab_size": VOCAB,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "rope_theta": 10_000.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "hidden_act": "silu",
        "query_num": 16,
        "image_size": 112,
        "init_tts": False,
        "drop_vision_last_layer": False,
        "audio_pool_step": 5,
        "audio_chunk_length": 1.0,
        "stream_input": True,
        "slice_config": {"max_slice_nums": 1, "scale_resolution": 112, "patch_size": 14},
        "vision_config": {
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 224,
            "patch_size": 14,
            "model_type": "siglip",
        },
        "audio_config": {
            "d_model": 160,
            "encoder_layers": 4,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 640,
            "num_mel_bins": 80,
            "max_source_positions": 1500,
            "activation_function": "gelu",
        },
    }


def write_settings(directory: Path) -> ModelConfig:
    """Write config, tokenizer and settings into a directory, made if it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    config = config_json()
    _write(directory / "config.json", config)
    control = tiny_tokenizer.write(directory, VOCAB, sentences())
    end = control["<|endoftext|>"]
    _write(
        directory / "generation_config.json",
        {
            "bos_token_id": end,
            "pad_token_id": end,
            "eos_token_id": [control["<|im_end|>"], end],
            "do_sample": False,
        },
    )
    _write(
        directory / "preprocessor_config.json",
        {
            "max_slice_nums": 1,
            "scale_resolution": 112,
            "patch_size": 14,
            "use_image_id": False,
            "image_feature_size": 16,
            "norm_mean": [0.5, 0.5, 0.5],
            "norm_std": [0.5, 0.5, 0.5],
            "version": 4.5,
        },
    )
    return ModelConfig.from_json(config)


def copy_settings(checkpoint: Path, directory: Path) -> None:
    """Put another checkpoint's config, tokenizer and settings into a directory.

    Raises:
        CheckpointError: it has no settings.
    """
    files = sorted(checkpoint.glob("*.json"))
    if not files:
        raise CheckpointError(f"{checkpoint} holds no config.json: it is no checkpoint")
    directory.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, directory / file.name)


def sentences() -> list[str]:
    """All that nano says, and its prompt, for the merges of its tokenizer."""
    view = View(())
    said = [answers.answer(intent, Slots(), view, Memory()) for intent in answers.FIXED]
    said += [answers.UNKNOWN, answers.NO_PICTURE, "You told me no word.", "I will not."]
    said += ["Nothing changed.", "Nothing.", "Yes.", "No."]
    things = [
        Thing(kind, colour, "big", 0.5, 0.5) for kind, colour in itertools.product(KINDS, COLOURS)
    ]
    for pair in itertools.pairwise([*things, *things[::3]]):
        said.append(f"I see {answers.listed(pair)}.")
        said.append(answers.change([], pair[:1]))
        said.append(answers.change(pair[:1], []))
    for thing in things:
        slots = Slots(thing.kind, thing.colour, number=2)
        for watch in ("watch_appears", "watch_leaves", "watch_turns", "watch_count"):
            said += [Watch(watch, slots).promise, Watch(watch, slots).alert]
        said += [f"The {thing.kind} is not there.", f"I see {answers.listed([thing])}."]
        said.append(answers.change([thing], [Thing(thing.kind, "red", "big", 0.5, 0.5)]))
    for place in PLACES:
        said.append(answers.answer("where", Slots("ball"), View((_at(place),)), Memory()))
    for size in ("small", "big"):
        view = View((Thing("ball", "red", size, 0.5, 0.5),))
        said.append(answers.answer("size_of", Slots("ball"), view, Memory()))
    for colour in COLOURS:
        view = View((Thing("ball", colour, "big", 0.5, 0.5),))
        said.append(answers.answer("colour_of", Slots("ball"), view, Memory()))
    for word in WORDS:
        said += [answers.answer("remember", Slots(word=word), view, Memory())]
        said += [answers.answer("repeat", Slots(word=word), view, Memory())] * 2
    for number in range(len(NUMBERS)):
        said += [f"{NUMBERS[number].capitalize()}.", f" {NUMBERS[number]},"]
    said += [answers.answer("count", Slots(number=n), view, Memory()) for n in range(3, 11)]
    return [*said, *[prompts.OMNI_DUPLEX, prompts.PREVIOUS, "system\nuser\nassistant\n"] * 3]


def _at(place: str) -> Thing:
    return Thing("ball", "red", "big", (PLACES.index(place) + 0.5) / 3, 0.5)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

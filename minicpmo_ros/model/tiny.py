"""Random checkpoints in the published layout, of any size, from a seed.

Every tensor follows from the seed, its name and its shape alone, so two machines, and two versions
of this file, agree about a checkpoint without sending it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model import tiny_tokenizer
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.layout import Shapes, shapes
from minicpmo_ros.model.weight_files import INDEX, SINGLE

PUBLISHED_VOCAB = 151_748

# Sizes in the words of config.json. `tiny` and `wide` differ in every size that is free to differ.
SIZES: dict[str, dict[str, dict[str, int]]] = {
    "tiny": {
        "llm": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32},
        "vision": {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2}
        | {"num_attention_heads": 4},
        "audio": {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4}
        | {"encoder_ffn_dim": 256},
        "speech": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "num_key_value_heads": 4},
    },
    "wide": {
        "llm": {"hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 3}
        | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32},
        "vision": {"hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 3}
        | {"num_attention_heads": 6},
        "audio": {"d_model": 96, "encoder_layers": 3, "encoder_attention_heads": 6}
        | {"encoder_ffn_dim": 384},
        "speech": {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3}
        | {"num_attention_heads": 6, "num_key_value_heads": 6},
    },
    "quarter": {
        "llm": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 9}
        | {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128},
        "vision": {"hidden_size": 288, "intermediate_size": 1076, "num_hidden_layers": 7}
        | {"num_attention_heads": 4},
        "audio": {"d_model": 256, "encoder_layers": 6, "encoder_attention_heads": 4}
        | {"encoder_ffn_dim": 1024},
        "speech": {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 5}
        | {"num_attention_heads": 3, "num_key_value_heads": 3},
    },
    "full": {
        "llm": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36}
        | {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
        "vision": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
        | {"num_attention_heads": 16},
        "audio": {"d_model": 1024, "encoder_layers": 24, "encoder_attention_heads": 16}
        | {"encoder_ffn_dim": 4096},
        "speech": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 20}
        | {"num_attention_heads": 12, "num_key_value_heads": 12},
    },
}


def config_json(size: str = "tiny", vocab: int = PUBLISHED_VOCAB) -> dict[str, Any]:
    """The config.json of a checkpoint of a named size.

    Raises:
        ConfigError: the size is unknown, or the vocabulary too small for bytes and control tokens.
    """
    if size not in SIZES:
        raise ConfigError(f"checkpoint: size is {size!r}; known are {', '.join(SIZES)}")
    sizes = SIZES[size]
    control = tiny_tokenizer.control_ids(vocab)
    return {
        "model_type": "minicpmo",
        "architectures": ["MiniCPMO"],
        "vocab_size": vocab,
        **sizes["llm"],
        "rope_theta": 1_000_000.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "hidden_act": "silu",
        "use_cache": True,
        "query_num": 64,
        "image_size": 448,
        "drop_vision_last_layer": False,
        "vision_batch_size": 16,
        "audio_pool_step": 5,
        "audio_chunk_length": 1.0,
        "stream_input": True,
        "slice_config": {"max_slice_nums": 1, "model_type": "minicpmv"},
        "vision_config": {
            **sizes["vision"],
            "image_size": 980,
            "patch_size": 14,
            "model_type": "siglip",
        },
        "audio_config": {
            **sizes["audio"],
            "num_mel_bins": 80,
            "max_source_positions": 1500,
            "activation_function": "gelu",
        },
        "tts_config": {
            **sizes["speech"],
            "llm_dim": sizes["llm"]["hidden_size"],
            "num_audio_tokens": 6562,
            # The published table of texts is this much longer than the vocabulary.
            "num_text_tokens": vocab + 316,
            "num_vq": 1,
            "projector_type": "mlp",
            # Speech borrows the ids of two tokens that it never reads.
            "audio_bos_token_id": control["<focus>"],
            "text_eos_token_id": control["</perception>"],
            "condition_type": "hidden_text_merge",
            "normalize_projected_hidden": True,
            "audio_tokenizer_type": "s3tokenizer_step_audio",
            "attention_type": "full_attention",
            "max_position_embeddings": 4096,
        },
    }


def tensor(seed: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 values of one tensor.

    Matrices and tables are normal with deviation 0.05 (0.2 for the LLM's head, so that logits
    differ), norms' and weight norms' gains lie about 1, all other vectors about 0.
    """
    random = np.random.default_rng([seed, zlib.crc32(key.encode())])
    normal = random.standard_normal(shape, dtype=np.float32)
    if key.endswith("parametrizations.weight.original0"):
        return (1.0 + 0.1 * normal).astype(np.float32)
    if len(shape) >= 2:
        return normal * np.float32(0.2 if key == "llm.lm_head.weight" else 0.05)
    is_gain = key.endswith("weight") and ("norm" in key.lower() or ".ln_" in key)
    return ((1.0 if is_gain else 0.0) + 0.05 * normal).astype(np.float32)


def write_checkpoint(
    directory: Path | str,
    seed: int = 0,
    size: str | Mapping[str, Any] = "tiny",
    vocab: int = 1024,
    *,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
) -> Path:
    """Write a whole checkpoint: config, weights, tokenizer, settings.

    Args:
        directory: made if it is not there; its weights are replaced.
        size: a name in SIZES, or a config.json of one's own (`vocab` is then its vocab_size).
        vocab: tokens of the language model and of the tokenizer; 151748 as published.
        shards: files of weights; only one of them is in memory at a time.

    Raises:
        ConfigError: the size is unknown or the vocabulary too small.
        CheckpointError: a config of one's own is of no use.
    """
    directory = Path(directory)
    config = config_json(size, vocab) if isinstance(size, str) else dict(size)
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", config)
    control = tiny_tokenizer.write(directory, config["vocab_size"])
    _write_settings(directory, control)
    _write_weights(directory, shapes(ModelConfig.from_json(config)), seed, dtype, shards)
    return directory


def _write_weights(
    directory: Path, tensors: Shapes, seed: int, dtype: torch.dtype, shards: int
) -> None:
    for old in (*directory.glob("model*.safetensors"), directory / INDEX):
        old.unlink(missing_ok=True)
    names = [SINGLE]
    if shards > 1:
        names = [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
    files = _spread(tensors, names)
    for name in names:
        keys = [key for key, file in files.items() if file == name]
        weights = {key: torch.from_numpy(tensor(seed, key, tensors[key])).to(dtype) for key in keys}
        save_file(weights, directory / name, metadata={"format": "pt"})
    if shards > 1:
        total = sum(torch.Size(shape).numel() for shape in tensors.values()) * dtype.itemsize
        _write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": files})


def _spread(tensors: Shapes, names: list[str]) -> dict[str, str]:
    """The file of each tensor: as many parameters in each as can be, in the order of names."""
    parameters = {key: torch.Size(shape).numel() for key, shape in tensors.items()}
    total = sum(parameters.values())
    before = 0
    files = {}
    for key in sorted(tensors):
        files[key] = names[min(before * len(names) // total, len(names) - 1)]
        before += parameters[key]
    return files


def _write_settings(directory: Path, control: Mapping[str, int]) -> None:
    end_of_text = control["<|endoftext|>"]
    _write_json(
        directory / "generation_config.json",
        {
            "bos_token_id": end_of_text,
            "pad_token_id": end_of_text,
            "eos_token_id": [control["<|im_end|>"], end_of_text],
            "do_sample": True,
            "temperature": 0.6,
            "top_k": 20,
            "top_p": 0.95,
        },
    )
    _write_json(
        directory / "preprocessor_config.json",
        {
            "max_slice_nums": 9,
            "scale_resolution": 448,
            "patch_size": 14,
            "use_image_id": True,
            "image_feature_size": 64,
            "slice_mode": True,
            "audio_pool_step": 5,
            "norm_mean": [0.5, 0.5, 0.5],
            "norm_std": [0.5, 0.5, 0.5],
            "version": 4.5,
        },
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

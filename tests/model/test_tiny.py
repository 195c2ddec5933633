"""Random checkpoints: the same everywhere, in the published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.layout import PARTS, shapes
from minicpmo_ros.model.tiny import SIZES, config_json, tensor, write_checkpoint
from minicpmo_ros.model.tiny_tokenizer import NAMES, SMALLEST, control_ids
from minicpmo_ros.model.tokenizer import CONTROLS, Tokenizer


@pytest.mark.parametrize(
    ("seed", "key", "shape", "expected"),
    [
        (0, "resampler.query", (64, 128), [-0.001282, -0.026257, 0.068498]),
        (0, "llm.lm_head.weight", (8, 4), [0.237768, -0.204977, -0.394456]),
        (3, "llm.model.norm.weight", (4,), [1.021727, 1.022131, 1.00414]),
        (3, "resampler.ln_q.bias", (4,), [0.059566, 0.03764, 0.043021]),
        (
            0,
            "tts.head_code.0.parametrizations.weight.original0",
            (5, 1),
            [1.113971, 0.984661, 0.981293],
        ),
    ],
)
def test_values_follow_from_seed_name_and_shape(
    seed: int, key: str, shape: tuple[int, ...], expected: list[float]
) -> None:
    """The values with which the reference's outputs were made."""
    found = tensor(seed, key, shape)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.ravel()[:3], expected, atol=1e-6)


def test_the_full_size_has_the_published_parameters() -> None:
    found = shapes(ModelConfig.from_json(config_json("full")))
    millions = {
        name: sum(np.prod(shape) for key, shape in found.items() if key.startswith(prefix)) / 1e6
        for prefix, name in PARTS.items()
    }
    assert millions["language model"] == pytest.approx(8189.2, abs=0.1)
    assert millions["vision encoder"] == pytest.approx(417.8, abs=0.1)
    assert millions["resampler"] == pytest.approx(88.9, abs=0.1)
    assert millions["audio encoder"] == pytest.approx(307.2, abs=0.1)


@pytest.mark.parametrize("size", ["tiny", "wide"])
def test_what_is_written_opens_as_a_checkpoint(tmp_path: Path, size: str) -> None:
    write_checkpoint(tmp_path, seed=5, size=size, vocab=700, dtype=torch.bfloat16, shards=2)
    opened = Checkpoint(tmp_path)
    assert opened.config == ModelConfig.load(tmp_path)
    assert {entry.dtype for entry in opened.entries.values()} == {torch.bfloat16}
    assert len(Tokenizer(tmp_path, vocab=opened.config.llm.vocab)) == 700


def test_the_same_seed_writes_the_same_bytes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    again = write_checkpoint(tmp_path)
    files = sorted(file.name for file in tiny_checkpoint.iterdir())
    assert files == sorted(file.name for file in again.iterdir())
    assert all((again / f).read_bytes() == (tiny_checkpoint / f).read_bytes() for f in files)


def test_other_shards_replace_the_old_ones(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, shards=3)
    write_checkpoint(tmp_path, shards=2)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    write_checkpoint(tmp_path)
    assert [file.name for file in tmp_path.glob("model*")] == ["model.safetensors"]


def test_control_tokens_have_the_published_ids_at_the_published_vocabulary() -> None:
    found = control_ids(151_748)
    assert found["<|endoftext|>"] == 151_643
    assert found["<think>"] == 151_667
    assert found["<image>"] == 151_669
    assert found["<unit>"] == 151_683
    assert found["<|audio_start|>"] == 151_697
    assert found["<|listen|>"] == 151_705
    assert found["<|turn_eos|>"] == 151_717
    assert found["<|tts_pad|>"] == 151_722
    assert found["<|timbre_31|>"] == 151_747


def test_every_control_token_that_we_name_is_there() -> None:
    assert set(CONTROLS.values()) <= set(NAMES)
    assert len(set(NAMES)) == len(NAMES)


def test_transformers_reads_the_tokenizer_too(tiny_checkpoint: Path) -> None:
    theirs, ours = AutoTokenizer.from_pretrained(tiny_checkpoint), Tokenizer(tiny_checkpoint)
    assert len(theirs) == len(ours)
    assert theirs.convert_tokens_to_ids(list(ours.added)) == list(ours.added.values())
    assert theirs.encode("Hello 你好 🤖") == ours.encode("Hello 你好 🤖")


def test_left_over_ids_are_syllables(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_checkpoint(tmp_path, vocab=3000))
    last_text = control_ids(3000)["<unk>"] - 1
    assert tokenizer.decode(range(last_text - 500, last_text)).replace(" ", "").isalpha()


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'huge'; known are {', '.join(SIZES)}"):
        write_checkpoint(tmp_path, size="huge")
    with pytest.raises(ConfigError, match=f"vocab is 300; .* take {SMALLEST}"):
        write_checkpoint(tmp_path, vocab=300)
    write_checkpoint(tmp_path, vocab=SMALLEST)
    assert Tokenizer(tmp_path).encode("hé") == Tokenizer(tmp_path).encode("h", "é")

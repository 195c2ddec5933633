"""A small byte-level BPE tokenizer with the control tokens of the published one.

It can write any text. Its merges are learned from our own prompts, and ids that this leaves over
stand for syllables, so that what a random model says can at least be read aloud.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model import prompts
from minicpmo_ros.model.tokenizer import byte_alphabet

# In the order of their ids, which are the last of the vocabulary. Pairs are <name> and </name>.
_QWEN = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
    *("<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
# Control to the model, but written out when decoded.
_READABLE = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>"),
)
_PAIRS = (
    *("image", "ref", "box", "quad", "point", "slice", "image_id", "unit", "answer", "focus"),
    *("line", "perception", "source_image", "image_save_to"),
)
_OMNI = (
    *("audio_start", "audio", "audio_end", "spk_bos", "spk", "spk_eos", "tts_bos", "tts_eos"),
    *("listen", "speak", "interrupt", "vad_start", "vad_end", "emotion_start", "emotion_end"),
    *("speed_start", "speed_end", "pitch_start", "pitch_end", "turn_bos", "turn_eos"),
    *("chunk_eos", "chunk_bos", "chunk_tts_bos", "chunk_tts_eos", "tts_pad"),
    *(f"timbre_{number}" for number in range(7, 32)),
)
NAMES = (
    "<unk>",
    *_QWEN,
    *_READABLE,
    *(f"<{slash}{name}>" for name in _PAIRS for slash in ("", "/")),
    *(f"<|{name}|>" for name in _OMNI),
)
SMALLEST = 256 + len(NAMES)

# Qwen's: contractions, words with a leading space, single digits, punctuation, line ends, spaces.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Characters that nobody says aloud: tokens with one of them are forbidden in speech.
_UNSPOKEN = frozenset("#*_`~|<>[]{}\\^=@")

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking -%}
{{ '<think>\\n\\n</think>\\n\\n' }}
{%- endif -%}
{%- if use_tts_template is defined and use_tts_template -%}
{{ '<|tts_bos|>' }}
{%- endif -%}
{%- endif -%}
"""


def control_ids(vocab: int) -> dict[str, int]:
    """The ids of the control tokens: the last of the vocabulary, as in the published one.

    Raises:
        ConfigError: the vocabulary cannot hold them and all bytes.
    """
    if vocab < SMALLEST:
        raise ConfigError(f"tokenizer: vocab is {vocab}; bytes and control tokens take {SMALLEST}")
    first = vocab - len(NAMES)
    return {name: first + number for number, name in enumerate(NAMES)}


def write(directory: Path, vocab: int, sentences: Iterable[str] | None = None) -> dict[str, int]:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    Args:
        sentences: what the merges are learned from; None: our own prompts.

    Returns:
        The ids of the control tokens.
    """
    control = control_ids(vocab)
    definition = _learn(vocab - len(NAMES), _sentences() if sentences is None else sentences)
    texts = definition["model"]["vocab"]
    definition["added_tokens"] = [
        {
            "id": number,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": name not in _READABLE,
        }
        for name, number in control.items()
    ]
    _write_json(directory / "tokenizer.json", definition)
    named = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
    }
    special = [name for name in NAMES if name not in _READABLE and name not in named.values()]
    _write_json(
        directory / "special_tokens_map.json", named | {"additional_special_tokens": special}
    )
    _write_json(
        directory / "tokenizer_config.json",
        named
        | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 131072,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
            "bad_token_ids": _unspoken(texts),
        },
    )
    return control


def _learn(size: int, sentences: Iterable[str]) -> dict[str, Any]:
    """A tokenizer.json without control tokens: bytes, learned merges, syllables, `size` in all."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size,
        initial_alphabet=list(byte_alphabet().values()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    definition: dict[str, Any] = json.loads(tokenizer.to_str())
    vocab: dict[str, int] = definition["model"]["vocab"]
    for syllable in _syllables():
        if len(vocab) >= size:
            break
        vocab.setdefault(syllable, len(vocab))
    return definition


def _sentences() -> list[str]:
    """What the merges are learned from: all that `prompts` says."""
    of_language = (prompts.AUDIO_DUPLEX, prompts.CLONE, prompts.ASSIST, prompts.TEXT_ONLY)
    spoken = [text for texts in of_language for text in texts.values()]
    return [prompts.OMNI_DUPLEX, prompts.PREVIOUS, "system\nuser\nassistant\n", *spoken]


def _syllables() -> itertools.chain[str]:
    """Words of one, two and three syllables with a space before them, without end in practice."""
    space = byte_alphabet()[ord(" ")]
    syllables = [c + v for c in "bcdfghjklmnprstvwxz" for v in ("a", "e", "i", "o", "u")]
    words = (itertools.product(syllables, repeat=count) for count in (1, 2, 3))
    return itertools.chain.from_iterable((space + "".join(w) for w in some) for some in words)


def _unspoken(texts: Mapping[str, int]) -> list[int]:
    return sorted(number for text, number in texts.items() if _UNSPOKEN & set(text))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

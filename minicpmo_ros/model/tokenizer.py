"""Text to token ids and back; the ids of the control tokens, by name.

Text is encoded by a tokenizer that knows no control token, so nothing in a user's words can become
one: `<|im_end|>` in a prompt is ten characters. Control tokens enter as `Control`, by our own hand.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

from minicpmo_ros.errors import CheckpointError

# Control tokens as the published tokenizer spells them, by the field of ControlIds.
CONTROLS = {
    "unk": "<unk>",
    "endoftext": "<|endoftext|>",
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "think": "<think>",
    "think_end": "</think>",
    "image": "<image>",
    "image_end": "</image>",
    "slice": "<slice>",
    "slice_end": "</slice>",
    "image_id": "<image_id>",
    "image_id_end": "</image_id>",
    "unit": "<unit>",
    "unit_end": "</unit>",
    "audio_start": "<|audio_start|>",
    "audio": "<|audio|>",
    "audio_end": "<|audio_end|>",
    "spk_bos": "<|spk_bos|>",
    "spk": "<|spk|>",
    "spk_eos": "<|spk_eos|>",
    "tts_bos": "<|tts_bos|>",
    "tts_eos": "<|tts_eos|>",
    "listen": "<|listen|>",
    "speak": "<|speak|>",
    "interrupt": "<|interrupt|>",
    "turn_bos": "<|turn_bos|>",
    "turn_eos": "<|turn_eos|>",
    "chunk_eos": "<|chunk_eos|>",
    "chunk_bos": "<|chunk_bos|>",
    "chunk_tts_bos": "<|chunk_tts_bos|>",
    "chunk_tts_eos": "<|chunk_tts_eos|>",
    "tts_pad": "<|tts_pad|>",
}


@dataclass(frozen=True)
class ControlIds:
    """Ids of the control tokens; what each is for stands in `prompts` and where it is fed."""

    unk: int
    endoftext: int
    im_start: int
    im_end: int
    think: int
    think_end: int
    image: int
    image_end: int
    slice: int
    slice_end: int
    image_id: int
    image_id_end: int
    unit: int
    unit_end: int
    audio_start: int
    audio: int
    audio_end: int
    spk_bos: int
    spk: int
    spk_eos: int
    tts_bos: int
    tts_eos: int
    listen: int
    speak: int
    interrupt: int
    turn_bos: int
    turn_eos: int
    chunk_eos: int
    chunk_bos: int
    chunk_tts_bos: int
    chunk_tts_eos: int
    tts_pad: int


@dataclass(frozen=True)
class Control:
    """A control token in a sequence of texts, by its spelling: Control("<|im_end|>")."""

    name: str


class Tokenizer:
    """The tokenizer of a checkpoint directory.

    Args:
        directory: with tokenizer.json and tokenizer_config.json.
        vocab: rows of the language model's embedding; every id must be below.

    Attributes:
        added: ids of the control tokens by their spelling.
        readable_ids: of those that are text when they are decoded, such as <think>.
        special_ids: of those that tokenizer_config.json declares special; the published one leaves
            out a few, such as <|turn_bos|>, that tokenizer.json marks as special, too.

    Raises:
        CheckpointError: a file is missing or unreadable, control tokens are missing (the message
            names them: it is another model's tokenizer), or ids exceed `vocab`.
    """

    def __init__(self, directory: Path | str, vocab: int | None = None) -> None:
        self.directory = Path(directory)
        definition = _read_json(self.directory / "tokenizer.json")
        settings = _read_json(self.directory / "tokenizer_config.json")
        added = definition.get("added_tokens") or []
        self.added: dict[str, int] = {token["content"]: token["id"] for token in added}
        # Without its added tokens: text can only become text.
        self._text = _fast(definition | {"added_tokens": []}, self.directory)
        self._texts = self._text.get_vocab()
        # Such as <think>: control on the way in, yet readable on the way out.
        self._readable = {t["content"]: t["id"] for t in added if not t["special"]}
        self.readable_ids = frozenset(self._readable.values())
        self.special_ids = self._declared_special(settings)
        self.control = self._control_ids()
        self.bad_ids: tuple[int, ...] = tuple(settings.get("bad_token_ids") or ())
        self.chat_template = self._read_chat_template(settings)
        if vocab is not None and (highest := len(self) - 1) >= vocab:
            raise CheckpointError(
                f"{self.directory}: the tokenizer has ids up to {highest}, the language model only"
                f" {vocab} embeddings; they are not of the same checkpoint"
            )

    def __len__(self) -> int:
        return 1 + max(max(self._texts.values()), max(self.added.values()))

    def id(self, name: str) -> int:
        """The id of any control token, by its spelling.

        Raises:
            CheckpointError: the tokenizer has no such token.
        """
        if name not in self.added:
            raise CheckpointError(f"{self.directory}: the tokenizer has no control token {name}")
        return self.added[name]

    def encode(self, *parts: str | Control) -> list[int]:
        """Ids of texts and control tokens in a row.

        Neighbouring texts are encoded as one, so where a template ends and a user's words begin
        leaves no trace.
        """
        ids: list[int] = []
        text = ""
        for part in (*parts, None):
            if isinstance(part, str):
                text += part
                continue
            if text:
                # Strings of other programs may hold halves of surrogate pairs.
                whole = text.encode("utf-8", errors="replace").decode("utf-8")
                ids += self._text.encode(whole, add_special_tokens=False).ids
                text = ""
            if part is not None:
                ids.append(self.id(part.name))
        return ids

    def bytes_of(self, token: int) -> bytes:
        """The UTF-8 bytes, perhaps part of a character, that a token stands for.

        Control tokens and ids that the tokenizer does not know stand for none.
        """
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of these tokens without control tokens; broken UTF-8 becomes U+FFFD."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", errors="replace")

    def stream(self) -> TextStream:
        """A decoder for tokens that come one by one."""
        return TextStream(self)

    @cached_property
    def _bytes(self) -> list[bytes]:
        byte_of = {ord(character): byte for byte, character in byte_alphabet().items()}
        found = [b""] * len(self)
        for token, number in self._texts.items():
            found[number] = token.translate(byte_of).encode("latin-1", errors="replace")
        for number in self.added.values():
            found[number] = b""
        for token, number in self._readable.items():
            found[number] = token.encode()
        return found

    def _control_ids(self) -> ControlIds:
        missing = [
            CONTROLS[field.name]
            for field in fields(ControlIds)
            if CONTROLS[field.name] not in self.added
        ]
        if missing:
            raise CheckpointError(
                f"{self.directory}: tokenizer.json is not that of MiniCPM-o 4.5; of its"
                f" {len(self.added)} control tokens these are missing: {', '.join(missing)}"
            )
        return ControlIds(**{field: self.added[name] for field, name in CONTROLS.items()})

    def _declared_special(self, settings: dict[str, Any]) -> frozenset[int]:
        names = [
            value for key, value in settings.items() if re.fullmatch("(bos|eos|pad|unk)_token", key)
        ]
        if "additional_special_tokens" in settings:
            names += settings["additional_special_tokens"] or ()
        else:
            names += self.added.keys() - self._readable.keys()
        spelled = (name["content"] if isinstance(name, dict) else name for name in names)
        return frozenset(self.added[name] for name in spelled if name in self.added)

    def _read_chat_template(self, settings: dict[str, Any]) -> str | None:
        """In tokenizer_config.json, or, as newer transformers save it, in a file of its own."""
        file = self.directory / "chat_template.jinja"
        if file.exists():
            return file.read_text(encoding="utf-8")
        template = settings.get("chat_template")
        return template if isinstance(template, str) else None


class TextStream:
    """Turns tokens into text as they come, holding back bytes until their character is whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, *ids: int) -> str:
        """The text that these tokens complete; often empty for Chinese or emoji."""
        return self._decoder.decode(b"".join(map(self._tokenizer.bytes_of, ids)))

    def finish(self) -> str:
        """What was held back, broken characters as U+FFFD; the stream can be used again."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


def byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in a byte-level vocabulary.

    Printable Latin-1 stands for itself, the other 68 bytes for the characters from U+0100 on
    (GPT-2's bytes_to_unicode; Radford et al. 2019).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in alphabet)
    return alphabet | {byte: chr(0x100 + number) for number, byte in enumerate(others)}


def split_controls(text: str, names: Sequence[str]) -> list[str | Control]:
    """A text of our own, such as a rendered template, with its control tokens made explicit."""
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    pieces = re.split(f"({pattern})", text)
    # re.split puts what matched at the odd places.
    return [Control(piece) if place % 2 else piece for place, piece in enumerate(pieces) if piece]


def _fast(definition: dict[str, Any], directory: Path) -> FastTokenizer:
    try:
        return FastTokenizer.from_str(json.dumps(definition))
    except Exception as error:  # what the library raises is a bare Exception
        raise CheckpointError(f"{directory}/tokenizer.json is no tokenizer: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} has no {path.name}; `minicpmo checkpoint fetch` brings it"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds {type(found).__name__}, not an object")
    return found

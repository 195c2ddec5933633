"""A tokenizer that gives the published ids for the few texts that a golden pair is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from minicpmo_ros.model.tokenizer import byte_alphabet

DATA = Path(__file__).parent / "data"

# The words of the prompt and of the sign before what was said in forgotten units.
WORDS = {
    "system": 8948,
    "\n": 198,
    "Streaming": 76509,
    " Omni": 85225,
    " Conversation": 50830,
    ".\n": 624,
    "\n\n": 271,
    "previous": 19702,
    ":": 25,
    " ": 220,
}
# Of the ids that are never said, those that this random network would have said.
NEVER_SAID = (21562, 51632)


def write_tokenizer(directory: Path) -> None:
    """Replace the texts of a tokenizer that `tiny` wrote; its control tokens are the published."""
    alphabet = byte_alphabet()

    def spelled(text: bytes) -> str:
        return "".join(alphabet[byte] for byte in text)

    file = directory / "tokenizer.json"
    definition = json.loads(file.read_text(encoding="utf-8"))
    control = {token["id"] for token in definition["added_tokens"]}
    vocab = {character: number for number, character in enumerate(alphabet.values())}
    vocab |= {spelled(text.encode()): number for text, number in WORDS.items()}
    golden: Mapping[str, str] = json.loads((DATA / "golden.json").read_text())["token_bytes"]
    said = {int(token): bytes.fromhex(text) for token, text in golden.items()}
    vocab |= {spelled(text): token for token, text in said.items() if token not in control}
    # Words that are tokens are taken whole, so there is nothing to merge.
    definition["model"] |= {"vocab": vocab, "merges": [], "ignore_merges": True}
    file.write_text(json.dumps(definition), encoding="utf-8")

    file = directory / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(settings | {"bad_token_ids": NEVER_SAID}), encoding="utf-8")

"""Text and tokens: any text comes back, words never become control, bytes wait for their rest."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.tokenizer import CONTROLS, Control, Tokenizer, byte_alphabet, split_controls

SPEECH = "Hello there! 你好世界。 🤖 naïve café\n\n  2024"


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> Tokenizer:
    return Tokenizer(tiny_checkpoint, vocab=1024)


def words_with_controls() -> st.SearchStrategy[str]:
    names = st.sampled_from([*CONTROLS.values(), "<tool_call>", "<|vision_start|>"])
    return st.lists(st.one_of(names, st.text(max_size=8)), max_size=6).map("".join)


@given(text=words_with_controls())
def test_no_words_become_control_tokens(tokenizer: Tokenizer, text: str) -> None:
    control = set(tokenizer.added.values())
    assert not control & set(tokenizer.encode(text))


def test_half_a_surrogate_pair_is_a_character_that_is_missing(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud83eb")) == "a?b"


@given(text=words_with_controls())
def test_text_comes_back_normalised(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


def test_plain_text_is_encoded_as_by_the_library(tiny_checkpoint: Path) -> None:
    library = FastTokenizer.from_file(str(tiny_checkpoint / "tokenizer.json"))
    assert Tokenizer(tiny_checkpoint).encode(SPEECH) == library.encode(SPEECH).ids


def test_control_tokens_enter_by_name_only(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(Control("<|im_start|>"), "user\n", "<|im_start|>")
    assert ids[0] == tokenizer.control.im_start == tokenizer.id("<|im_start|>")
    assert ids.count(ids[0]) == 1
    with pytest.raises(CheckpointError, match=r"no control token <\|nonsense\|>"):
        tokenizer.encode(Control("<|nonsense|>"))


def test_neighbouring_texts_are_encoded_as_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("user\n", "\nassis", "tant") == tokenizer.encode("user\n\nassistant")


@given(text=st.text(max_size=30))
def test_a_stream_says_the_same_as_the_whole(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert stream.finish() == ""


def test_a_character_is_held_back_until_it_is_whole(tokenizer: Tokenizer) -> None:
    alphabet = byte_alphabet()
    library = FastTokenizer.from_file(str(tokenizer.directory / "tokenizer.json"))
    first, *rest = (library.token_to_id(alphabet[byte]) for byte in "龘".encode())
    stream = tokenizer.stream()
    assert [stream.push(first), *map(stream.push, rest)] == ["", "", "龘"]
    assert stream.push(first) == ""
    assert stream.finish() == "\ufffd"
    assert stream.push(first, *rest) == "龘"


def test_control_tokens_are_silent_but_for_the_readable(tokenizer: Tokenizer) -> None:
    control = tokenizer.control
    assert tokenizer.decode([control.speak, *tokenizer.encode("yes"), control.turn_eos]) == "yes"
    assert tokenizer.decode([control.think]) == "<think>"
    assert tokenizer.decode([len(tokenizer), -1, 10**9]) == ""


def test_the_checkpoint_declares_what_is_special(own_checkpoint: Path) -> None:
    """As published: fewer than are marked so. Where it declares none, those that are marked."""
    file = own_checkpoint / "tokenizer_config.json"
    marked = Tokenizer(own_checkpoint)
    control = marked.control
    assert marked.special_ids == set(marked.added.values()) - marked.readable_ids
    settings = json.loads(file.read_text())
    spellings = ["<|speak|>", {"content": "<|turn_eos|>", "special": True}]
    file.write_text(json.dumps(settings | {"additional_special_tokens": spellings}))
    named = {control.im_start, control.im_end, control.endoftext, control.unk}
    assert Tokenizer(own_checkpoint).special_ids == named | {control.speak, control.turn_eos}


def test_bad_ids_come_from_the_checkpoint(tokenizer: Tokenizer) -> None:
    settings = json.loads((tokenizer.directory / "tokenizer_config.json").read_text())
    assert tokenizer.bad_ids == tuple(settings["bad_token_ids"])
    assert tokenizer.encode("#")[0] in tokenizer.bad_ids
    assert not set(tokenizer.bad_ids) & set(tokenizer.encode("Hello there, 你好"))


def test_ids_follow_the_tokenizer_wherever_it_puts_them(
    own_checkpoint: Path, tokenizer: Tokenizer
) -> None:
    file = own_checkpoint / "tokenizer.json"
    definition = json.loads(file.read_text())
    added = definition["added_tokens"]
    ids = [token["id"] for token in added]
    for token, number in zip(added, reversed(ids), strict=True):
        token["id"] = number
    file.write_text(json.dumps(definition))
    turned = Tokenizer(own_checkpoint)
    assert turned.control.listen == ids[0] + ids[-1] - tokenizer.control.listen


def test_another_models_tokenizer_is_told_by_what_it_lacks(own_checkpoint: Path) -> None:
    file = own_checkpoint / "tokenizer.json"
    definition = json.loads(file.read_text())
    definition["added_tokens"] = definition["added_tokens"][1:4]  # as a plain Qwen has
    file.write_text(json.dumps(definition))
    with pytest.raises(CheckpointError, match=r"of its 3 control tokens these are missing") as e:
        Tokenizer(own_checkpoint)
    assert "<|listen|>" in str(e.value)
    assert "<|im_end|>" not in str(e.value)


def test_a_tokenizer_larger_than_the_language_model_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="ids up to 1023, the language model only 900"):
        Tokenizer(tiny_checkpoint, vocab=900)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_missing_or_spoilt_file_is_named(own_checkpoint: Path, name: str) -> None:
    file = own_checkpoint / name
    file.write_text(file.read_text()[:50])
    with pytest.raises(CheckpointError, match=f"{name} cannot be read as JSON"):
        Tokenizer(own_checkpoint)
    file.unlink()
    with pytest.raises(CheckpointError, match=f"no {name}.*checkpoint fetch"):
        Tokenizer(own_checkpoint)


def test_json_that_is_no_tokenizer_is_named(own_checkpoint: Path) -> None:
    (own_checkpoint / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is no tokenizer"):
        Tokenizer(own_checkpoint)


def test_templates_are_split_at_their_control_tokens() -> None:
    parts = split_controls("<|im_start|>user\n<image>", ["<image>", "<|im_start|>"])
    assert parts == [Control("<|im_start|>"), "user\n", Control("<image>")]

"""What the language model reads before and around pictures, sound and the user's words.

A prompt is a sequence of parts: text, control tokens, and places that embeddings fill. Short
sentences that the model was trained with stand here word for word, as control tokens do; they name
the task and choose the voice. All other wording may be replaced by a file of the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from minicpmo_ros.errors import CheckpointError, ConfigError
from minicpmo_ros.model.tokenizer import Control, Tokenizer, split_controls

Language = Literal["en", "zh"]
Scene = Literal["omni", "audio"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Slot:
    """A place for embeddings: the number-th picture slice or sound of its kind."""

    kind: Literal["voice", "picture", "sound"]
    number: int = 0


Part = str | Control | Slot
VOICE = Slot("voice")

IM_START, IM_END = Control("<|im_start|>"), Control("<|im_end|>")
AUDIO_START, AUDIO_END = Control("<|audio_start|>"), Control("<|audio_end|>")
IMAGE, IMAGE_END = Control("<image>"), Control("</image>")
SLICE, SLICE_END = Control("<slice>"), Control("</slice>")
IMAGE_ID, IMAGE_ID_END = Control("<image_id>"), Control("</image_id>")
THINK, THINK_END = Control("<think>"), Control("</think>")
TTS_BOS, TTS_EOS = Control("<|tts_bos|>"), Control("<|tts_eos|>")

# Stands before what was said in the units that a slid context window dropped.
PREVIOUS = "\n\nprevious: "

# Full duplex with pictures has one sentence for both languages: the voice carries the language.
OMNI_DUPLEX = "Streaming Omni Conversation."
AUDIO_DUPLEX: dict[Language, str] = {
    "en": (
        "Speak with the voice of the audio below. You are a helpful assistant on a call: answer"
        " seriously, briefly and in a natural, spoken style. You are in duplex mode, where you can"
        " listen and speak at the same time."
    ),
    "zh": (
        "请用下面音频中的声音说话。你是一个正在通话的智能助手，"  # noqa: RUF001
        "请认真、简洁、自然地用口语回答用户的问题。"
        "你处于双工模式，可以一边听、一边说。"  # noqa: RUF001
    ),
}
CLONE: dict[Language, str] = {
    "en": "Clone the voice in the provided audio prompt.",
    "zh": "模仿音频样本的音色并生成新的内容。",
}
ASSIST: dict[Language, str] = {
    "en": "As an assistant, you will speak using this voice style.",
    "zh": "你的任务是用这种声音模式来当一个助手。",
}
TEXT_ONLY: dict[Language, str] = {
    "en": "You are a helpful assistant. You can accept images, audio and text.",
    "zh": "你是一个有用的助手，可以理解图片、声音和文字。",  # noqa: RUF001
}

# In a prompt file, a line of its own: the reference voice goes here.
VOICE_LINE = "{voice}"


@dataclass(frozen=True)
class PromptText:
    """The wording of a system prompt; `after` is None where the file does not place the voice."""

    before: str
    after: str | None = None


@dataclass(frozen=True)
class SystemPrompt:
    """A system prompt around the reference voice, whose embeddings come between the two halves."""

    prefix: tuple[Part, ...]
    suffix: tuple[Part, ...]

    def ids(self, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
        """Token ids before and after the voice."""
        before, after = (encode(half, tokenizer) for half in (self.prefix, self.suffix))
        return tokens(before), tokens(after)


def duplex_prompt(
    language: str = "en", scene: str = "omni", text: PromptText | None = None
) -> SystemPrompt:
    """The system prompt of full duplex; it is the same whether or not there is a voice.

    Raises:
        ConfigError: the language or the scene is unknown.
    """
    spoken = _language(language)
    if scene not in get_args(Scene):
        raise ConfigError(f"prompt: scene is {scene!r}; known are omni and audio")
    if text is None:
        text = PromptText(OMNI_DUPLEX if scene == "omni" else AUDIO_DUPLEX[spoken])
    # No newline at the end: units follow at once.
    return SystemPrompt(
        prefix=(IM_START, f"system\n{text.before}\n", AUDIO_START),
        suffix=(AUDIO_END, *([text.after] if text.after else []), IM_END),
    )


def chat_prompt(
    language: str = "en",
    text: PromptText | None = None,
    *,
    voice: bool = True,
    separator: str = "",
) -> SystemPrompt:
    """The system prompt of the chat and streaming modes.

    Args:
        voice: whether a reference voice comes between the halves.
        separator: between text and voice; chat has a newline, streaming and video nothing.

    Raises:
        ConfigError: the language is unknown.
    """
    spoken = _language(language)
    if text is None:
        before, after = (CLONE[spoken], ASSIST[spoken]) if voice else (TEXT_ONLY[spoken], "")
    elif text.after is not None:
        before, after = text.before, text.after
    else:
        before, after = (CLONE[spoken], text.before) if voice else (text.before, "")
    if not voice:
        words = separator.join(part for part in (before, after) if part)
        return SystemPrompt(prefix=(IM_START, f"system\n{words}"), suffix=(IM_END, "\n"))
    return SystemPrompt(
        prefix=(IM_START, f"system\n{before}{separator if before else ''}", AUDIO_START),
        suffix=(AUDIO_END, f"{separator if after else ''}{after}", IM_END, "\n"),
    )


def read_prompt_file(path: Path | str) -> PromptText:
    """A system prompt of the user's own, as UTF-8 text.

    A line that is only `{voice}` says where the reference voice goes; without one it goes where
    the mode has it. Control tokens in the file are text.

    Raises:
        ConfigError: the file cannot be read, is empty, or places the voice twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt file {path} cannot be read as UTF-8 text: {error}") from None
    halves = re.split(rf"^[ \t]*{re.escape(VOICE_LINE)}[ \t]*$", text, flags=re.MULTILINE)
    halves = [half.strip() for half in halves]
    if not any(halves):
        raise ConfigError(f"prompt file {path} is empty; write what the model should be told")
    if len(halves) > 2:
        raise ConfigError(
            f"prompt file {path} has {len(halves) - 1} lines {VOICE_LINE}; there is one voice"
        )
    return PromptText(*halves)


@dataclass(frozen=True)
class Message:
    """One message of a chat; strings in it are the speaker's words and never control."""

    role: Role
    content: tuple[Part, ...]


def message(role: Role, *items: Sequence[Part] | Part, separator: str = "\n") -> Message:
    """A message of several items, as the model expects them apart: a newline in chat, or nothing.

    An item is a text, or the parts of a picture or of a sound.
    """
    content: list[Part] = []
    for number, item in enumerate(items):
        if number and separator:
            content.append(separator)
        content += [item] if isinstance(item, str | Control | Slot) else item
    return Message(role, tuple(content))


def chat_parts(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    reply: bool = True,
    speak: bool = False,
    think: bool = False,
) -> list[Part]:
    """A conversation through the checkpoint's own chat template.

    Args:
        reply: end with the start of the assistant's reply.
        speak: and have it spoken.
        think: let the model think before it answers.

    Raises:
        CheckpointError: the checkpoint has no chat template, or it fails on these messages.
    """
    # The template sees marks in place of contents, so that no content can look like a template.
    marks = [f"\ue000{number}\ue001" for number in range(len(messages))]
    marked = [{"role": m.role, "content": mark} for m, mark in zip(messages, marks, strict=True)]
    rendered = _render(tokenizer, marked, reply=reply, speak=speak, think=think)
    names = tuple(tokenizer.added)
    parts: list[Part] = []
    for place, piece in enumerate(re.split("\ue000(\\d+)\ue001", rendered)):
        if place % 2:
            parts += messages[int(piece)].content
        else:
            parts += split_controls(piece, names)
    return parts


def next_user_turn(*, previous: Literal["none", "whole", "cut"]) -> list[Part]:
    """What opens a user's turn in streaming mode, by how the assistant's last turn ended.

    `cut` is a turn that was stopped before the model ended it.
    """
    opening: list[Part] = [IM_START, "user\n"]
    if previous == "none":
        return opening
    return [*([TTS_EOS] if previous == "cut" else []), IM_END, "\n", *opening]


def reply_turn(*, speak: bool = True, think: bool = False) -> list[Part]:
    """What closes the user's turn in streaming mode and opens the assistant's."""
    thought: list[Part] = [] if think else [THINK, "\n\n", THINK_END, "\n\n"]
    return [IM_END, "\n", IM_START, "assistant\n", *thought, *([TTS_BOS] if speak else [])]


def picture_parts(
    grid: tuple[int, int] | None, first_slot: int = 0, image_id: int | None = None
) -> list[Part]:
    """A picture in a chat: its whole, then its slices row by row, each a slot of embeddings.

    Args:
        grid: columns and rows of slices, or None where it is not cut.
        first_slot: number of the slot for the whole; the slices count on from it.
        image_id: the picture's number in the conversation, where they are numbered.
    """
    parts: list[Part] = []
    if image_id is not None:
        parts += [IMAGE_ID, str(image_id), IMAGE_ID_END]
    parts += [IMAGE, Slot("picture", first_slot), IMAGE_END]
    columns, rows = grid or (0, 0)
    slot = first_slot
    for row in range(rows):
        if row:
            parts.append("\n")
        for _ in range(columns):
            slot += 1
            parts += [SLICE, Slot("picture", slot), SLICE_END]
    return parts


def sound_parts(slot: int = 0) -> list[Part]:
    """A sound in a chat or at the start of a streamed turn."""
    return [AUDIO_START, Slot("sound", slot), AUDIO_END]


def encode(parts: Iterable[Part], tokenizer: Tokenizer) -> list[list[int] | Slot]:
    """Parts as they are fed: runs of token ids, and slots between them."""
    fed: list[list[int] | Slot] = []
    run: list[str | Control] = []
    for part in parts:
        if not isinstance(part, Slot):
            run.append(part)
            continue
        if run:
            fed.append(tokenizer.encode(*run))
            run = []
        fed.append(part)
    if run:
        fed.append(tokenizer.encode(*run))
    return fed


def tokens(fed: Iterable[list[int] | Slot]) -> list[int]:
    """The ids of an encoded prompt, slots left out."""
    return [token for run in fed if not isinstance(run, Slot) for token in run]


def _render(
    tokenizer: Tokenizer, messages: list[dict[str, str]], *, reply: bool, speak: bool, think: bool
) -> str:
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    if tokenizer.chat_template is None:
        raise CheckpointError(
            f"{tokenizer.directory}: tokenizer_config.json has no chat_template, which chat needs"
        )
    # Only the template is used: transformers knows the functions that templates may call.
    renderer = PreTrainedTokenizerFast(
        tokenizer_object=FastTokenizer(BPE()), chat_template=tokenizer.chat_template
    )
    try:
        rendered = renderer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=reply,
            enable_thinking=think,
            use_tts_template=speak,
        )
    except Exception as error:  # a template may raise whatever it likes
        raise CheckpointError(
            f"{tokenizer.directory}: the chat template fails on these messages: {error}"
        ) from error
    return str(rendered)


def _language(name: str) -> Language:
    if name not in get_args(Language):
        raise ConfigError(f"prompt: language is {name!r}; known are en and zh")
    return cast(Language, name)

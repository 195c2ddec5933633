"""Chat: one question with pictures, a sound or a video, and its answer as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from minicpmo_ros.duplex.dialogue import Dialogue
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.errors import InputError
from minicpmo_ros.model import prompts
from minicpmo_ros.model.mel import RATE_HZ, checked_sound
from minicpmo_ros.model.prompts import Slot
from minicpmo_ros.runtime.api import Network, Rows, Sound


def answer(
    dialogue: Dialogue,
    text: str,
    shown: Sequence[Shown] = (),
    sound: Sound | None = None,
    system: prompts.SystemPrompt | None = None,
    *,
    limit: int = 0,
) -> Iterator[str]:
    """Answer a question out of nothing but it.

    Several pictures with a sound are a video: the pictures spread over it evenly, each second of
    sound behind its pictures. A question that is heard is answered in words to be spoken.

    Args:
        dialogue: its context is used, and what was in it is forgotten.
        text: the question; control tokens in it are text.
        shown: pictures that go with it, oldest first.
        sound: float32 [samples] at 16 kHz.
        limit: tokens of the answer at most; 0: as the dialogue has it.

    Yields:
        The answer's text, whole characters at a time.

    Raises:
        InputError: there is no question, or sound or pictures are not as they should be.
        KvFullError: question and answer are longer than the context.
        NumericsError: the network gave NaN.
    """
    if not text.strip() and not shown and sound is None:
        raise InputError("the question is empty: give a text, a picture or a sound")
    dialogue.clear()
    config = dialogue.network.config.slices
    numbered = 0 if config.use_image_id else None
    rows: dict[Slot, Rows] = {}
    items: list[Sequence[prompts.Part]] = []
    is_video = sound is not None and len(shown) > 1
    if sound is not None and is_video:
        for pictures, heard in _seconds(dialogue.network, shown, sound):
            # Of a video, pictures are neither cut nor numbered.
            seen, rows = dialogue.pictures(pictures, 1, rows)
            items += [seen, _heard(heard, rows)]
    else:
        for number, one in enumerate(shown):
            first = None if numbered is None else number
            seen, rows = dialogue.pictures([one], config.chat_max_slices, rows, first)
            items.append(seen)
        if sound is not None:
            items.append(_heard(dialogue.network.sound(checked_sound(sound)), rows))
    if text:
        items.append([text])
    question = prompts.message("user", *items, separator="" if is_video else "\n")
    before = [] if system is None else [*system.prefix, *system.suffix]
    reply = prompts.chat_parts(dialogue.tokenizer, [question], speak=sound is not None)
    dialogue.begin([*before, *reply], rows, limit)
    while dialogue.replying:
        if piece := dialogue.more(1).text:
            yield piece


def _heard(heard: Rows, rows: dict[Slot, Rows]) -> list[prompts.Part]:
    number = len(rows)
    rows[Slot("sound", number)] = heard
    return prompts.sound_parts(number)


def _seconds(
    network: Network, shown: Sequence[Shown], sound: Sound
) -> Iterator[tuple[Sequence[Shown], Rows]]:
    """A video second by second; what is left of the sound at its end is filled up with silence."""
    sound = checked_sound(sound)
    count = max(-(-len(sound) // RATE_HZ), 1)
    sound = np.pad(sound, (0, count * RATE_HZ - len(sound)))
    places = [number * count // len(shown) for number in range(len(shown))]
    for second, heard in enumerate(network.seconds(sound)):
        yield [one for one, place in zip(shown, places, strict=True) if place == second], heard

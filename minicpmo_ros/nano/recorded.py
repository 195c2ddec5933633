"""What people really said, and photographs: sounds with their words, pictures of this world."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minicpmo_ros.bench.figures import Figure
from minicpmo_ros.errors import InputError
from minicpmo_ros.media.sound_file import read_sound
from minicpmo_ros.nano.answers import FIXED, UNKNOWN
from minicpmo_ros.nano.episode import HEARD_OUT_S
from minicpmo_ros.nano.lines import RATE_HZ
from minicpmo_ros.nano.living import Turn
from minicpmo_ros.nano.measured import share
from minicpmo_ros.nano.pieces import active_rms
from minicpmo_ros.nano.voices import Speaker, random_voice
from minicpmo_ros.nano.wordings import (
    BACKCHANNELS,
    BACKCHANNELS_HELD_OUT,
    EVERY_WORDING,
    INTENTS,
)

# What is asked before a photograph; the answer is the same to all.
QUESTIONS = ("what do you see", "how many things are there", "what do you see on the left")
PICTURES = (".png", ".jpg", ".jpeg")
_LEVEL = 0.05  # of speech at the microphone, rms
_HISS = 1e-4
_SOUNDING = 0.02  # of its loudest sample: where speech begins and ends
_BEFORE_S, _AFTER_S = 1.0, 3.0
_WIDTH = 160
# How a question or an order begins, which may be meant for anybody.
_ASKING = frozenset(
    (
        *("what", "which", "who", "whose", "when", "where", "why", "how", "is", "are", "am"),
        *("do", "does", "did", "can", "could", "may", "will", "would", "have", "has"),
        *("please", "tell"),
    )
)
Live = Callable[[NDArray[np.float32], NDArray[np.uint8] | None], list[Turn]]
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Phrase:
    """A sound file and its words. answer: what is right to say to it, "" for nothing."""

    file: Path
    words: str
    answer: str


@dataclass
class Recorded:
    """answers: to what was meant for the robot, whether each was right. silences: whether nothing
    was said to what was not. photographs: whether each answer said that it does not know. wrong: in
    words."""

    answers: list[bool] = field(default_factory=list)
    silences: list[bool] = field(default_factory=list)
    photographs: list[bool] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def figures(self) -> Iterator[Figure]:
        if self.answers:
            yield Figure("nano.answers_human", share(self.answers))
        if self.silences:
            yield Figure.at_most("nano.false_speech_human", 1 - share(self.silences), 0.05)
        if self.photographs:
            yield Figure("nano.answers_photographs", share(self.photographs))


def phrases(listed: Path, sounds: Path) -> list[Phrase]:
    """Of a text file whose lines are "name: words", those that have a file name.wav in `sounds`
    and of which can be told what is right: the answer to a greeting, thanks or the like; nothing to
    what is for somebody else. Not what may be a question to anybody, nor what holds a greeting and
    more.

    Raises:
        InputError: the list cannot be read, or there is nothing of the kind in it.
    """
    try:
        lines = listed.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list of phrases {listed} cannot be read: {error}") from None
    found = []
    for line in lines:
        name, colon, words = line.partition(":")
        file = sounds / f"{name.strip()}.wav"
        answer = _right(words)
        if colon and not line.startswith(";") and answer is not None and file.is_file():
            found.append(Phrase(file, words.strip(), answer))
    if not found:
        raise InputError(
            f"no line of {listed} names a file of {sounds}: it takes lines like 'hello: Hello.' for"
            " hello.wav"
        )
    return found


def photographs(folder: Path) -> list[Path]:
    """Its pictures. Raises InputError where there are none."""
    found = sorted(one for one in folder.glob("*") if one.suffix.lower() in PICTURES)
    if not found:
        raise InputError(f"{folder} holds no pictures ({', '.join(PICTURES)})")
    return found


def measure_phrases(live: Live, some: list[Phrase], seed: int, progress: Progress) -> Recorded:
    """Each in a conversation of its own, without a camera."""
    found = Recorded()
    for number, phrase in enumerate(some):
        rng = np.random.default_rng([1_000_037, seed, number])
        sound, end_s = _heard(read_sound(phrase.file, RATE_HZ), rng)
        turns = live(sound, None)
        verdict = _answered(turns, phrase.answer, end_s) if phrase.answer else not turns
        (found.answers if phrase.answer else found.silences).append(verdict)
        if not verdict:
            found.wrong.append(f"{phrase.words!r}: {[one.text for one in turns]}")
        progress((number + 1) / len(some))
    return found


def measure_photographs(live: Live, files: list[Path], seed: int, progress: Progress) -> Recorded:
    """Each shown to a conversation of its own, and asked about in a voice that was held out."""
    found = Recorded()
    speaker = Speaker()
    for number, file in enumerate(files):
        rng = np.random.default_rng([1_000_039, seed, number])
        with Image.open(file) as opened:
            height = max(1, round(_WIDTH * opened.height / opened.width))
            pixels = np.asarray(opened.convert("RGB").resize((_WIDTH, height)))
        for question in QUESTIONS:
            said = speaker.say(question, random_voice(rng, "espeak"))
            sound, end_s = _heard(said.samples, rng)
            turns = live(sound, pixels)
            verdict = _answered(turns, UNKNOWN, end_s)
            found.photographs.append(verdict)
            if not verdict:
                found.wrong.append(f"{file.name}, {question!r}: {[one.text for one in turns]}")
        progress((number + 1) / len(files))
    return found


def _right(words: str) -> str | None:
    """What to say to it; None where that cannot be told."""
    plain = _plain(words)
    for intent, answer in FIXED.items():
        wordings = INTENTS.get(intent)
        if wordings and plain in map(_plain, (*wordings.learned, *wordings.held_out)):
            return answer
    if not plain or plain in _BACKCHANNELS:
        return None
    if "?" in words or plain.split()[0] in _ASKING:
        return None
    return None if any(f" {one} " in f" {plain} " for one in _WORDINGS) else ""


def _plain(words: str) -> str:
    return " ".join(re.findall(r"[a-z']+", words.lower()))


_BACKCHANNELS = frozenset(map(_plain, (*BACKCHANNELS, *BACKCHANNELS_HELD_OUT)))
_WORDINGS = frozenset(map(_plain, EVERY_WORDING))


def _heard(
    samples: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], float]:
    """As the microphone gives it, float32 [units * 16000], and where it ends, in seconds."""
    loudest = float(np.abs(samples).max())
    sounding = np.flatnonzero(np.abs(samples) > _SOUNDING * loudest)
    samples = samples[sounding[0] : sounding[-1] + 1] if len(sounding) else samples[:0]
    begins = int((_BEFORE_S + rng.random()) * RATE_HZ)
    ends = begins + len(samples)
    units = math.ceil(ends / RATE_HZ + _AFTER_S)
    sound = (_HISS * rng.standard_normal(units * RATE_HZ)).astype(np.float32)
    loud = active_rms(samples)
    sound[begins:ends] += samples * np.float32(_LEVEL / loud if loud else 1.0)
    return sound, ends / RATE_HZ


def _answered(turns: list[Turn], answer: str, end_s: float) -> bool:
    """Whether this and nothing else was said, beginning in the unit in which the silence behind was
    long enough or the one after."""
    due = math.ceil(end_s + HEARD_OUT_S) - 1
    return [one.text for one in turns] == [answer] and due <= turns[0].unit <= due + 1

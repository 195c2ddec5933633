"""What the tests of the local brain share: seconds of a world, a voice of tones, and a network that
draws the tokens of a script."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minicpmo_ros.brains.api import Surroundings, VoiceSpan
from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import NS_PER_S, Picture, WordMark
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Context, Logits, Rows
from minicpmo_ros.timeline.unit import Unit

T0_NS = 1_700_000_000 * NS_PER_S
RATE_HZ = 16_000
NOBODY = Surroundings()


@dataclass(frozen=True)
class Utterance:
    data: np.ndarray
    rate_hz: int
    words: tuple[WordMark, ...]
    text: str


class Tones:
    """A voice that says every character as 10 ms; `said` keeps what it was given."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def speak(self, text: str) -> Utterance:
        self.said.append(text)
        samples = 240 * len(text)
        return Utterance(np.ones(samples, np.int16), 24_000, (WordMark(text, 0, samples),), text)


class Directed:
    """A context of which the likeliest token is that of the script, as long as there is one."""

    def __init__(self, context: Context, prompter: Prompter) -> None:
        self._context = context
        self._prompter = prompter
        self.read_parts: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def read(self, *parts: Any, at: int | None = None) -> Rows:
        self.read_parts += parts
        return self._context.read(*parts, at=at)

    def logits(self, hidden: Rows) -> Logits:
        logits = self._context.logits(hidden)
        if (token := self._prompter.next()) is not None:
            logits[token] += 1000
        return logits


class Prompter:
    """A network whose language model draws what is in `script`, then `rest` for ever; where that is
    None, as it likes."""

    def __init__(self, network: Any, tokenizer: Tokenizer) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.script: deque[int] = deque()
        self.rest: int | None = tokenizer.control.listen
        self.looked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def context(self, capacity: int) -> Directed:
        return Directed(self.network.context(capacity), self)

    def look(self, slices: Sequence[Any]) -> Any:
        self.looked += 1
        return self.network.look(slices)

    def next(self) -> int | None:
        return self.script.popleft() if self.script else self.rest

    def says(self, text: str, *, end: bool = False) -> None:
        """One unit of a turn in duplex."""
        control = self.tokenizer.control
        last = [control.turn_eos] if end else []
        words = self.tokenizer.encode(text)
        self.script += [control.speak, *words, *last, control.chunk_eos]

    def replies(self, text: str) -> None:
        """A whole reply in the turn-based modes."""
        self.script += [*self.tokenizer.encode(text), self.tokenizer.control.tts_eos]


def ns(seconds: float) -> int:
    return T0_NS + round(seconds * NS_PER_S)


def second(
    k: int,
    *pictures: Picture,
    samples: np.ndarray | None = None,
    rate_hz: int = RATE_HZ,
) -> Unit:
    """Unit k, of noise unless samples are given."""
    if samples is None:
        noise = np.random.default_rng(k).normal(0, 1000, RATE_HZ)
        samples = noise.astype(np.int16)
    return Unit(k, ns(k), ns(k + 1), samples, rate_hz, pictures)


def picture(seconds: float, shade: int | None = None) -> Picture:
    """A small picture of that second; of one shade, or of noise."""
    rgb = np.random.default_rng(round(seconds * 100)).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    if shade is not None:
        rgb[:] = shade
    return Picture.of(ns(seconds), rgb)


def unreadable(seconds: float) -> Picture:
    def decode() -> np.ndarray:
        raise InputError("encoding 'yuv9000' is unknown; use rgb8")

    return Picture(ns(seconds), decode)


def somebody(start_s: float, stop_s: float | None) -> Surroundings:
    """Somebody speaks from and to these seconds; without an end, on and on."""
    stop_ns = None if stop_s is None else ns(stop_s)
    return Surroundings(voice=(VoiceSpan(ns(start_s), stop_ns),))

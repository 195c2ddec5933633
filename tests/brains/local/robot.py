"""What the tests of the local brain share: seconds of a world, and a voice of tones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicpmo_ros.brains.api import Surroundings, VoiceSpan
from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import NS_PER_S, Picture, WordMark
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

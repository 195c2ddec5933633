"""Noise of many kinds made by code, for episodes: some to train with, others to measure with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import MIC_RATE_HZ
from minicpmo_ros.nano import noises_held_out
from minicpmo_ros.nano.pieces import LOOP, bands, events, levelled, shaped, slow

NOISES: tuple[str, ...] = (
    "white",
    "pink",
    "brown",
    "hum",
    "fan",
    "clicks",
    "knocks",
    "music",
    "babble",
)
HELD_OUT_NOISES: tuple[str, ...] = ("rain", "engine", "crowd", "birds")

_PENTATONIC = (0, 2, 4, 7, 9)
_CHORDS = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (9, 12, 16), (2, 5, 9))


def noise(
    kind: str, samples: int, rng: np.random.Generator, speech: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """A piece of noise, float32 [samples], of one of `NOISES` or `HELD_OUT_NOISES`.

    Its loud parts have an RMS of `pieces.PIECE_RMS`. speech: pieces of it, float32 at 16 kHz, of
    which babble is made. Raises `ConfigError` for another kind, and for babble without speech.
    """
    if kind == "babble":
        if not sum(len(piece) for piece in speech):
            raise ConfigError("noise 'babble' is made of speech: give some pieces of it")
        return levelled(_babble(samples, rng, speech))
    if kind not in _MAKERS:
        known = ", ".join(NOISES + HELD_OUT_NOISES)
        raise ConfigError(f"noise is '{kind}': must be one of {known}")
    return levelled(_MAKERS[kind](samples, rng))


def stretch(kind: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Noise that comes and goes within so many seconds, to be placed in an episode."""
    piece = noise(kind, round(seconds * MIC_RATE_HZ), rng)
    fade = min(int(rng.uniform(0.03, 0.3) * MIC_RATE_HZ), len(piece) // 2)
    if fade:
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        piece[:fade] *= ramp
        piece[-fade:] *= ramp[::-1]
    return piece


def _white(samples: int, rng: np.random.Generator) -> np.ndarray:
    return np.resize(rng.standard_normal(min(samples, LOOP), dtype=np.float32), samples)


def _pink(samples: int, rng: np.random.Generator) -> np.ndarray:
    return shaped(samples, rng, lambda f: 1 / np.sqrt(np.maximum(f, 30)))


def _brown(samples: int, rng: np.random.Generator) -> np.ndarray:
    return shaped(samples, rng, lambda f: 1 / np.maximum(f, 30))


def _hum(samples: int, rng: np.random.Generator) -> np.ndarray:
    # 0.1 s holds whole periods of 50 and of 60 Hz.
    base = 50 if rng.random() < 0.5 else 60
    time = np.arange(MIC_RATE_HZ // 10) / MIC_RATE_HZ
    period = np.zeros(len(time))
    for harmonic in range(1, 13):
        amplitude = rng.uniform(0.1, 1) / harmonic ** rng.uniform(0.3, 1.5)
        period += amplitude * np.sin(2 * np.pi * (base * harmonic * time + rng.random()))
    hiss = _pink(samples, rng)
    return np.resize(period.astype(np.float32), samples) + hiss * (0.1 / max(hiss.std(), 1e-9))


def _fan(samples: int, rng: np.random.Generator) -> np.ndarray:
    centres = rng.uniform(80, 1_500, int(rng.integers(2, 5)))
    widths = rng.uniform(15, 300, len(centres))
    slope = rng.uniform(0.4, 1.0)

    def shape(f: np.ndarray) -> np.ndarray:
        return np.maximum(f, 40) ** np.float32(-slope) * (0.2 + 3 * bands(f, centres, widths))

    return shaped(samples, rng, shape) * slow(samples, rng, rng.uniform(0.3, 6), 1.0)


def _clicks(samples: int, rng: np.random.Generator) -> np.ndarray:
    def click() -> np.ndarray:
        length = int(rng.uniform(0.001, 0.008) * MIC_RATE_HZ)
        decay = np.exp(-np.arange(length, dtype=np.float32) * (5 / length))
        loud = np.float32(rng.uniform(0.3, 1))
        return rng.standard_normal(length, dtype=np.float32) * decay * loud

    return events(samples, rng, rng.uniform(0.5, 6), click)


def _knocks(samples: int, rng: np.random.Generator) -> np.ndarray:
    pitch, decay_s = rng.uniform(90, 900), rng.uniform(0.01, 0.05)
    time = np.arange(int(6 * decay_s * MIC_RATE_HZ)) / MIC_RATE_HZ

    def knock() -> np.ndarray:
        wave = np.sin(2 * np.pi * pitch * rng.uniform(0.95, 1.05) * time)
        wave += 0.3 * rng.standard_normal(len(time))
        return (wave * np.exp(-time / decay_s) * rng.uniform(0.3, 1)).astype(np.float32)

    return events(samples, rng, rng.uniform(0.4, 3), knock)


def _music(samples: int, rng: np.random.Generator) -> np.ndarray:
    """A melody over chords, of one instrument: harmonics that fade at a rate of their own."""
    beat = int(rng.uniform(0.15, 0.6) * MIC_RATE_HZ)
    root = 110 * 2 ** rng.uniform(0, 1)
    harmonics = np.arange(1, 9)
    amplitudes = rng.uniform(0.05, 1, 8) / harmonics ** rng.uniform(0.5, 2)
    longest = 4 * beat
    time = np.arange(longest) / MIC_RATE_HZ
    fade = np.exp(-time * rng.uniform(0.5, 6)) * np.minimum(1, time / rng.uniform(0.003, 0.05))
    cycle = np.sin(2 * np.pi * np.outer(np.arange(1024) / 1024, harmonics)) @ amplitudes
    tones: dict[int, np.ndarray] = {}

    def tone(semitone: int) -> np.ndarray:
        if semitone not in tones:
            phase = (time * (root * 2 ** (semitone / 12) * 1024)).astype(np.int64) & 1023
            tones[semitone] = (cycle[phase] * fade).astype(np.float32)
        return tones[semitone]

    sound = np.zeros(samples + longest, np.float32)
    melody, chords = rng.random() < 0.8, rng.random() < 0.7
    degree = 5
    for index, start in enumerate(range(0, samples, beat)):
        if chords and index % 4 == 0:
            for semitone in _CHORDS[int(rng.integers(len(_CHORDS)))]:
                sound[start : start + longest] += 0.5 * tone(semitone)
        if (melody or not chords) and (index == 0 or rng.random() < 0.75):
            degree = int(np.clip(degree + rng.integers(-2, 3), 0, 14))
            semitone = 12 + 12 * (degree // 5) + _PENTATONIC[degree % 5]
            sound[start : start + 2 * beat] += tone(semitone)[: 2 * beat]
    return sound[:samples]


def _babble(samples: int, rng: np.random.Generator, speech: Sequence[np.ndarray]) -> np.ndarray:
    """Three to seven people at once, each saying one piece after the other."""
    pieces = [levelled(piece) for piece in speech if len(piece)]
    sound = np.zeros(samples, np.float32)
    for _ in range(int(rng.integers(3, 8))):
        place = -int(rng.integers(MIC_RATE_HZ))
        loud = np.float32(rng.uniform(0.4, 1))
        while place < samples:
            piece = pieces[int(rng.integers(len(pieces)))]
            begin = max(place, 0)
            end = min(place + len(piece), samples)
            if end > begin:
                sound[begin:end] += loud * piece[begin - place : end - place]
            place += len(piece) + int(rng.integers(MIC_RATE_HZ // 4))
    return sound


_MAKERS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "white": _white,
    "pink": _pink,
    "brown": _brown,
    "hum": _hum,
    "fan": _fan,
    "clicks": _clicks,
    "knocks": _knocks,
    "music": _music,
    "rain": noises_held_out.rain,
    "engine": noises_held_out.engine,
    "crowd": noises_held_out.crowd,
    "birds": noises_held_out.birds,
}

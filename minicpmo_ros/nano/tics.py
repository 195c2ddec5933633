"""Sounds that people make without saying anything: coughs, sighs, "mm", laughter, mumbling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import MIC_RATE_HZ
from minicpmo_ros.nano.pieces import bands, levelled, shaped

TICS = ("cough", "throat", "sniff", "sigh", "hm", "laugh", "smack")
HELD_OUT_TICS = ("sneeze", "hiccup", "groan")


def tic(rng: np.random.Generator, kind: str = "", held_out: bool = False) -> np.ndarray:
    """One of `TICS`, or of `HELD_OUT_TICS`: float32 [n] at 16 kHz, 0.1 to 1.6 s.

    kind: which; without it any. Its loud parts have an RMS of `pieces.PIECE_RMS`. Raises
    `ConfigError` for another kind.
    """
    kinds = HELD_OUT_TICS if held_out else TICS
    kind = kind or kinds[int(rng.integers(len(kinds)))]
    if kind not in _MAKERS:
        raise ConfigError(f"tic is '{kind}': must be one of {', '.join(TICS + HELD_OUT_TICS)}")
    return levelled(_MAKERS[kind](rng))


def mutter(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Mumbling without words: voiced syllables, float32 [seconds x 16000]; level as for `tic`."""
    samples = round(seconds * MIC_RATE_HZ)
    pitch = rng.uniform(85, 240)
    sound = np.zeros(samples, np.float32)
    place = 0
    while place < samples:
        syllable = _voiced(rng, rng.uniform(0.09, 0.3), pitch * rng.uniform(0.85, 1.15))
        syllable *= np.hanning(len(syllable)) ** np.float32(rng.uniform(0.3, 1))
        part = syllable[: samples - place]
        sound[place : place + len(part)] += part * np.float32(rng.uniform(0.4, 1))
        place += int(len(syllable) * rng.uniform(0.8, 1.2))
        if rng.random() < 0.12:
            place += int(rng.uniform(0.1, 0.5) * MIC_RATE_HZ)
    return levelled(sound)


def _breath(rng: np.random.Generator, seconds: float, low: float, high: float) -> np.ndarray:
    """Noise through two or three resonances between low and high Hz."""
    centres = rng.uniform(low, high, int(rng.integers(2, 4)))
    return shaped(
        max(1, int(seconds * MIC_RATE_HZ)), rng, lambda f: bands(f, centres, centres / 3 + 100)
    )


def _voiced(
    rng: np.random.Generator, seconds: float, pitch: float, nasal: bool = False, glide: float = 0.0
) -> np.ndarray:
    """Pulses of a voice through the resonances of a mouth. glide: of pitch, in octaves."""
    samples = max(32, int(seconds * MIC_RATE_HZ))
    course = pitch * 2 ** np.linspace(0, glide, samples) * (1 + rng.normal(0, 0.01))
    phase = np.cumsum(course / MIC_RATE_HZ)
    pulses = np.diff(np.floor(phase), prepend=0.0).astype(np.float32)
    pulses += rng.normal(0, 0.01, samples).astype(np.float32)
    if nasal:
        centres = np.array([rng.uniform(200, 300), rng.uniform(1_000, 1_300), 2_300.0])
        strength = (1.0, 0.1, 0.05)
    else:
        centres = np.array([rng.uniform(300, 800), rng.uniform(800, 2_200), 2_700.0])
        strength = (1.0, 0.5, 0.2)
    # A power of two: lengths with large prime factors are slow. What comes around is cut.
    size = 1 << samples.bit_length()
    frequencies = np.fft.rfftfreq(size, 1 / MIC_RATE_HZ).astype(np.float32)
    shape = np.zeros_like(frequencies)
    for centre, loud in zip(centres, strength, strict=True):
        shape += loud * bands(frequencies, np.array([centre]), np.array([60 + centre / 20]))
    return np.fft.irfft(np.fft.rfft(pulses, size) * shape, size)[:samples].astype(np.float32)


def _burst(sound: np.ndarray, attack_s: float, decay: float) -> np.ndarray:
    """A sound that starts within attack_s and fades by so many times e until its end."""
    time = np.linspace(0, 1, len(sound), dtype=np.float32)
    rise = np.minimum(1, np.arange(len(sound)) / max(1.0, attack_s * MIC_RATE_HZ))
    return (sound * rise * np.exp(-decay * time)).astype(np.float32)


def _sequence(rng: np.random.Generator, sounds: list[np.ndarray], gap_s: float) -> np.ndarray:
    parts = []
    for sound in sounds:
        parts += [sound, np.zeros(int(rng.uniform(0.3, 1) * gap_s * MIC_RATE_HZ), np.float32)]
    return np.concatenate(parts[:-1])


def _mixed(noise: np.ndarray, voice: np.ndarray, share: float) -> np.ndarray:
    """Both at the same level before share (of the voice), over the length of the noise."""
    voice = np.resize(voice, len(noise)) / max(float(voice.std()), 1e-9)
    mixed = (1 - share) * noise / max(float(noise.std()), 1e-9) + share * voice
    return mixed.astype(np.float32)


def _cough(rng: np.random.Generator) -> np.ndarray:
    def one() -> np.ndarray:
        seconds = rng.uniform(0.12, 0.35)
        voice = _voiced(rng, seconds, rng.uniform(120, 350), glide=-0.5)
        mixed = _mixed(_breath(rng, seconds, 400, 3_500), voice, rng.uniform(0, 0.4))
        return _burst(mixed, 0.005, rng.uniform(3, 6))

    return _sequence(rng, [one() for _ in range(int(rng.integers(1, 4)))], 0.3)


def _throat(rng: np.random.Generator) -> np.ndarray:
    seconds = rng.uniform(0.25, 0.7)
    # So low that single pulses are heard.
    voice = _voiced(rng, seconds, rng.uniform(28, 60), glide=rng.uniform(-0.5, 0.5))
    mixed = _mixed(_breath(rng, seconds, 300, 2_500), voice, rng.uniform(0.4, 0.7))
    return _burst(mixed, 0.03, rng.uniform(1, 2))


def _sniff(rng: np.random.Generator) -> np.ndarray:
    def one() -> np.ndarray:
        breath = _breath(rng, rng.uniform(0.12, 0.35), 2_000, 6_500)
        return _burst(breath[::-1], 0.02, 2.0)[::-1]

    return _sequence(rng, [one() for _ in range(int(rng.integers(1, 3)))], 0.25)


def _sigh(rng: np.random.Generator) -> np.ndarray:
    return _burst(_breath(rng, rng.uniform(0.5, 1.3), 500, 3_000), 0.15, 3.0)


def _hm(rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(85, 240)
    voice = _voiced(rng, rng.uniform(0.2, 0.7), pitch, nasal=True, glide=rng.uniform(-0.4, 0.3))
    return _burst(voice, 0.04, 2.0)


def _laugh(rng: np.random.Generator) -> np.ndarray:
    length = rng.uniform(0.07, 0.14)
    # The same mouth at every "ha".
    voice = _voiced(rng, length, rng.uniform(150, 400))

    def one() -> np.ndarray:
        return _burst(_mixed(_breath(rng, length, 800, 3_000), voice, 0.7), 0.015, 3.0)

    return _sequence(rng, [one() for _ in range(int(rng.integers(3, 8)))], 0.1)


def _smack(rng: np.random.Generator) -> np.ndarray:
    def one() -> np.ndarray:
        return _burst(_breath(rng, rng.uniform(0.01, 0.03), 1_500, 5_000), 0.001, 5.0)

    return _sequence(rng, [one() for _ in range(int(rng.integers(1, 4)))], 0.15)


def _sneeze(rng: np.random.Generator) -> np.ndarray:
    gasp = _burst(_breath(rng, rng.uniform(0.2, 0.4), 800, 3_000)[::-1], 0.02, 3.0)[::-1]
    seconds = rng.uniform(0.3, 0.6)
    voice = _voiced(rng, seconds, rng.uniform(150, 400), glide=-0.7)
    burst = _mixed(_breath(rng, seconds, 2_000, 6_500), voice, 0.3)
    return np.concatenate([0.3 * gasp / max(float(gasp.std()), 1e-9), _burst(burst, 0.004, 5.0)])


def _hiccup(rng: np.random.Generator) -> np.ndarray:
    voice = _voiced(rng, rng.uniform(0.08, 0.16), rng.uniform(150, 400), glide=rng.uniform(0.5, 1))
    return _burst(voice, 0.01, 1.0)


def _groan(rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(80, 200)
    return _burst(_voiced(rng, rng.uniform(0.6, 1.4), pitch, glide=-0.6), 0.1, 1.5)


_MAKERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "cough": _cough,
    "throat": _throat,
    "sniff": _sniff,
    "sigh": _sigh,
    "hm": _hm,
    "laugh": _laugh,
    "smack": _smack,
    "sneeze": _sneeze,
    "hiccup": _hiccup,
    "groan": _groan,
}

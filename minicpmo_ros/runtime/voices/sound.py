"""A sound file as a reference voice: read, checked, and cut where it is too long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.sound_file import at_rate, open_sound, read_channels
from minicpmo_ros.model.mel import HOP, RATE_HZ, check_voice_length, checked_voice
from minicpmo_ros.model.voice_features import MEL_RATE_HZ

Array = NDArray[np.float32]

TOKEN = 4
"""Hops of 10 ms in one speech token."""
MOST_TOKENS = 422
"""Of a voice: 16.88 s. The published flow has room for 1000 mel frames, of which the last 100 that
it made and the largest chunk, 28 tokens, take 156; a token is two frames."""
# Where a long file is cut: the quietest place in the last third of what could be used.
EARLIEST_CUT = 2 / 3
# A pause is heard over 100 ms.
PAUSE = 10
# What is 40 dB below the loudest is not yet speech; 200 ms before speech are kept.
NOT_SPEECH = 1e-4
BEFORE_SPEECH = 20
# A flat top of one sample in a thousand is heard.
FULL_SCALE = 0.999
CLIPPED = 1e-3
# Below it, bands that the vocoder goes on from are empty.
WIDE_ENOUGH_HZ = RATE_HZ


@dataclass(frozen=True, eq=False)
class VoiceSound:
    """The same sound at two rates, float32 [samples] in -1..1, of 1 to 16.88 s.

    notes: what was done to it or is not well with it, a sentence each, for a person to read.
    """

    at_16k: Array
    at_24k: Array
    notes: tuple[str, ...] = ()


def read_voice_sound(path: Path | str) -> VoiceSound:
    """Read a wav, flac or ogg file: channels are mixed down, and any rate is taken.

    A file of up to 16.88 s is used whole. Of a longer one silence in front goes, and if it is still
    too long it ends at its quietest place between 11.25 and 16.88 s after that, so that no word is
    cut where there is a pause.

    Raises:
        InputError: it is no sound, silent, shorter than 1 s, or longer than 60 s.
        DeviceError: this machine has no libsndfile.
    """
    with open_sound(path) as file:
        length_s = file.frames / file.samplerate
    with _named(path):
        check_voice_length(length_s)  # before hours of it are read
    channels, rate_hz = read_channels(path)
    notes = [
        note
        for note in (_about_channels(channels), _about_rate(rate_hz), _about_clipping(channels))
        if note
    ]
    mixed = channels.mean(axis=1, dtype=np.float32)
    with _named(path):
        at_16k = checked_voice(at_rate(mixed, rate_hz, RATE_HZ))
        at_24k = at_rate(mixed, rate_hz, MEL_RATE_HZ)
        if len(at_16k) // HOP > MOST_TOKENS * TOKEN:
            first, last = _excerpt(at_16k)
            notes.append(
                f"of {length_s:.2f} s, those from {_seconds(first):.2f} to {_seconds(last):.2f} are"
                f" used: there is room for {_seconds(MOST_TOKENS * TOKEN):.2f} s, and it is cut"
                " where it is quietest"
            )
            at_16k = checked_voice(_between(at_16k, RATE_HZ, first, last))
            at_24k = _between(at_24k, MEL_RATE_HZ, first, last)
    return VoiceSound(at_16k, at_24k, tuple(notes))


@contextmanager
def _named(path: Path | str) -> Iterator[None]:
    """Whatever is wrong inside is wrong with this file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _about_channels(channels: Array) -> str:
    count = channels.shape[1]
    return f"its {count} channels are mixed down to one" if count > 1 else ""


def _about_rate(rate_hz: int) -> str:
    if rate_hz >= WIDE_ENOUGH_HZ:
        return ""
    return (
        f"it was recorded at {rate_hz} Hz, so it has nothing above {rate_hz // 2} Hz and the voice"
        f" will sound as over a telephone; {WIDE_ENOUGH_HZ} Hz or more are needed, {MEL_RATE_HZ}"
        " are best"
    )


def _about_clipping(channels: Array) -> str:
    share = float(np.mean(np.abs(channels) >= FULL_SCALE))
    if share < CLIPPED:
        return ""
    return (
        f"it is clipped: {share:.1%} of its samples are at full scale, and the voice will rattle;"
        " record it more quietly"
    )


def _excerpt(at_16k: Array) -> tuple[int, int]:
    """Where to begin and end, in hops of 10 ms; a whole number of tokens lies between."""
    hops = np.square(at_16k[: len(at_16k) // HOP * HOP], dtype=np.float64).reshape(-1, HOP)
    loudness = np.convolve(hops.mean(axis=1), np.full(PAUSE, 1 / PAUSE), "valid")
    speech = int(np.argmax(loudness > NOT_SPEECH * loudness.max()))
    first = max(0, speech - BEFORE_SPEECH)
    last, most = len(hops), MOST_TOKENS * TOKEN
    if last - first > most:
        earliest = first + round(EARLIEST_CUT * most)
        places = loudness[earliest : first + most - PAUSE + 1]
        latest_of_quietest = len(places) - 1 - int(np.argmin(places[::-1]))
        last = earliest + latest_of_quietest + PAUSE // 2
    return first, last - (last - first) % TOKEN


def _between(samples: Array, rate_hz: int, first: int, last: int) -> Array:
    hop = rate_hz * HOP // RATE_HZ
    return samples[first * hop : last * hop]


def _seconds(hops: int) -> float:
    return hops * HOP / RATE_HZ

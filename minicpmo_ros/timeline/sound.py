"""The door for sound: an `AudioChunk` of any kind is checked and becomes mono int16 samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.messages import AudioChunk

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 4_000, 192_000
MOST_CHANNELS = 8
LONGEST_S = 10


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A chunk on its way into the units. data: int16 [samples] mono at rate_hz, never empty."""

    stamp_ns: int
    rate_hz: int
    data: np.ndarray
    sequence: int
    muted: bool


def check_sound(chunk: AudioChunk) -> None:
    """Raise `InputError`, saying what is wrong and what would be right, unless chunk is sound."""
    rate = chunk.sample_rate
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)):
        raise InputError(f"sample rate {rate!r} is no whole number of Hz")
    if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
        raise InputError(
            f"sample rate {rate} Hz is out of range; {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} is right"
        )
    data = chunk.data
    if not isinstance(data, np.ndarray):
        raise InputError(f"audio data is a {type(data).__name__}; a numpy array of int16 is right")
    if data.dtype != np.int16:
        faults = ""
        if np.issubdtype(data.dtype, np.floating) and not np.isfinite(data).all():
            faults = f" with {np.count_nonzero(~np.isfinite(data))} NaN or infinite values"
        raise InputError(f"audio data is {data.dtype}{faults}; int16 is right")
    if data.ndim not in (1, 2):
        raise InputError(
            f"audio data has shape {data.shape}; [frames] or [frames, channels] is right"
        )
    if data.ndim == 2 and not 1 <= data.shape[1] <= MOST_CHANNELS:
        raise InputError(f"audio data has {data.shape[1]} channels; 1 to {MOST_CHANNELS} is right")
    if len(data) > LONGEST_S * rate:
        raise InputError(
            f"a chunk of {len(data) / rate:.1f} s is too long; at most {LONGEST_S} s is right"
        )


def length_of(chunk: AudioChunk) -> tuple[int, int] | None:
    """(rate in Hz, frames) of a chunk that was refused, None where it has no sensible length."""
    rate, shape = chunk.sample_rate, np.shape(chunk.data)
    if isinstance(rate, (int, np.integer)) and LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ and shape:
        return int(rate), int(shape[0])
    return None


def mono(data: np.ndarray) -> np.ndarray:
    """A copy as int16 [frames]: the mean of the channels, halves rounded to the even neighbour."""
    if data.ndim == 1:
        return data.copy()
    if data.shape[1] == 1:
        return data[:, 0].copy()
    channels = data.shape[1]
    return np.rint(data.astype(np.float64) @ np.ones(channels) / channels).astype(np.int16)

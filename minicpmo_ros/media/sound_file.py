"""Sound files: opened for reading, or read as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soxr

from minicpmo_ros.errors import DeviceError, InputError


def open_sound(path: Path | str) -> Any:
    """A wav, flac or ogg file as a `soundfile.SoundFile`, which has samples.

    Raises:
        InputError: it is not there, is no such file, or has no samples.
        DeviceError: this machine has no libsndfile.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"sound files cannot be read ({error}): pip install soundfile, and where its wheel "
            "does not bring it, install the package libsndfile1"
        ) from error
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"{path} does not exist; it would be a wav, flac or ogg file")
    try:
        file = soundfile.SoundFile(path)
    except (OSError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read as sound: {error}; it must be a wav, flac or ogg file"
        ) from error
    if not file.frames:
        file.close()
        raise InputError(f"{path} holds no sound: it has no samples")
    return file


def read_channels(path: Path | str) -> tuple[np.ndarray, int]:
    """All of a file as it is: float32 [samples, channels] in -1..1, and its rate in Hz.

    Raises:
        InputError, DeviceError: see `open_sound`; or it is damaged further on.
    """
    with open_sound(path) as file:
        try:
            return file.read(dtype="float32", always_2d=True), file.samplerate
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{path} cannot be read as sound to its end: {error}; it may be cut off"
            ) from error


def read_sound(path: Path | str, rate_hz: int) -> np.ndarray:
    """All of a file at this rate: float32 [samples] in -1..1, the mean of its channels.

    Raises:
        InputError, DeviceError: see `read_channels`.
    """
    channels, found_hz = read_channels(path)
    return at_rate(channels.mean(axis=1, dtype=np.float32), found_hz, rate_hz)


def at_rate(samples: np.ndarray, found_hz: int, rate_hz: int) -> np.ndarray:
    """Sound of one rate at another: float32 [samples]."""
    if found_hz == rate_hz:
        return samples
    return soxr.resample(samples, found_hz, rate_hz).astype(np.float32)

"""What is heard of a reference voice: a filter bank for who speaks, and the mel spectrogram that
the vocoder goes on from. The third, for the speech tokenizer, is `mel.mirrored_log_mel`. No torch.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.mel import HOP, RATE_HZ, checked_sound, mel_bands

Array = NDArray[np.float32]

FRAME = 400
BANK_FFT = 512
BANK_BINS = 80
LOWEST_HZ = 20.0
PREEMPHASIS = 0.97

MEL_RATE_HZ = 24_000
MEL_FFT = 1920
MEL_HOP = 480
MEL_BINS = 80
MEL_TOP_HZ = 8_000
# Mirrored at each end, so that each hop has its frame.
MEL_REACH = (MEL_FFT - MEL_HOP) // 2


def fbank(samples: Array) -> Array:
    """Kaldi's log filter bank less its mean over time: float32 [(samples - 400) // 160 + 1, 80].

    As `compute-fbank-feats` has it without dither: whole frames of 25 ms every 10 ms, each less its
    mean, pre-emphasised, under Povey's window; power in triangles on the mel scale 1127
    ln(1 + f / 700) from 20 Hz to 8 kHz. Samples are not scaled to 16 bits first.

    Args:
        samples: float32 at 16 kHz in -1..1.

    Raises:
        InputError: see `checked_sound`; or there is no whole frame.
    """
    samples = checked_sound(samples)
    if len(samples) < FRAME:
        raise InputError(f"a filter bank needs {FRAME} samples (25 ms) or more, not {len(samples)}")
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), FRAME)[::HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    spectrum = np.fft.rfft((frames - PREEMPHASIS * before) * _povey(), BANK_FFT)
    power = np.abs(spectrum) ** 2 @ _bank()
    bank = np.log(np.maximum(power, np.finfo(np.float32).eps))
    return (bank - bank.mean(axis=0)).astype(np.float32)


def prompt_mel(samples: Array) -> Array:
    """The mel spectrogram of speech at 24 kHz: float32 [samples // 480, 80].

    Magnitudes of frames of 80 ms every 20 ms under a periodic Hann window, in Slaney's bands from 0
    to 8 kHz; the natural logarithm, not below that of 1e-5.

    Raises:
        InputError: see `checked_sound`; or the sound is too short to be mirrored.
    """
    samples = checked_sound(samples)
    if len(samples) <= MEL_REACH:
        raise InputError(
            f"a mel spectrogram needs more than {MEL_REACH} samples (30 ms), not {len(samples)}"
        )
    padded = np.pad(samples, MEL_REACH, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, MEL_FFT)[::MEL_HOP]
    magnitude = np.sqrt(np.abs(np.fft.rfft(frames * _hann())) ** 2 + 1e-9)
    bands = mel_bands(MEL_BINS, MEL_FFT, MEL_RATE_HZ, MEL_TOP_HZ)
    return np.log(np.maximum(magnitude @ bands, 1e-5)).astype(np.float32)


@functools.cache
def _povey() -> NDArray[np.float64]:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / (FRAME - 1))) ** 0.85


@functools.cache
def _hann() -> NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MEL_FFT) / MEL_FFT)


@functools.cache
def _bank() -> NDArray[np.float64]:
    """Triangles whose sides are straight on the mel scale: [BANK_FFT / 2 + 1, BANK_BINS]."""
    bins = _mel(np.linspace(0.0, RATE_HZ / 2, BANK_FFT // 2 + 1))[:, None]
    low, high = _mel(np.array([LOWEST_HZ, RATE_HZ / 2]))
    points = np.linspace(low, high, BANK_BINS + 2)
    left, centre, right = points[:-2], points[1:-1], points[2:]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling))


def _mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log(1.0 + hz / 700.0)

"""Log-mel spectrograms of 16 kHz sound, whole or second by second: what the audio encoder reads.

Whisper's: 25 ms frames every 10 ms under a periodic Hann window, power spectrum, Slaney's mel bands
from 0 to 8 kHz, log10, all below a floor raised to it, then (x + 4) / 4. Frame i is centred on
sample 160 i, and sound is mirrored where a frame reaches over its end. The floor is either fixed at
-10 or lies 8 (80 dB) below the loudest value in sight.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import InputError

Array = NDArray[np.float32]

RATE_HZ = 16_000
N_FFT = 400
HOP = 160
HALF = N_FFT // 2
FIXED_FLOOR = -10.0
DYNAMIC_RANGE = 8.0
PIECE = 30 * RATE_HZ
"""Samples of the longest sound that is one spectrogram; shorter ones end in silence."""

SECOND = RATE_HZ
SECOND_FRAMES = SECOND // HOP
CONTEXT = 2
"""Frames that a window shows of the second before and of the second after its own."""
WINDOW_FRAMES = CONTEXT + SECOND_FRAMES + CONTEXT
# The first second needs the sound of the two frames after it: 1030 ms, of which 35 ms are silence
# in front of the stream and 5 ms wait from then on.
LEAD = 560
FIRST_SECOND = SECOND + 3 * HOP
DYNAMIC_FROM = 5 * SECOND
SLIDE = 10 * SECOND

SILENT_RMS = 1e-3
"""-60 dBFS. Below it there is no voice to copy."""
VOICE_S = (1.0, 60.0)
"""The shortest and the longest reference voice that is taken."""


def checked_sound(samples: Array, *, what: str = "sound") -> Array:
    """Return samples as float32, or say why they are no sound.

    Raises:
        InputError: not one channel of floating-point samples, or some are NaN or infinite.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise InputError(f"{what} has shape {samples.shape}; one channel, [samples], is needed")
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"{what} is {samples.dtype}; floating-point samples in -1..1 are needed"
            " (divide int16 by 32768)"
        )
    samples = samples.astype(np.float32, copy=False)
    if not np.isfinite(samples).all():
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        raise InputError(f"{what} has {bad} samples that are NaN or infinite, of {len(samples)}")
    return samples


def checked_voice(samples: Array, seconds: tuple[float, float] = VOICE_S) -> Array:
    """A reference voice as `checked_sound` returns it.

    Raises:
        InputError: too short, too long, silent, or see there.
    """
    samples = checked_sound(samples, what="the reference voice")
    check_voice_length(len(samples) / RATE_HZ, seconds)
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    if rms < SILENT_RMS:
        level = 20 * np.log10(max(rms, 1e-9))
        raise InputError(f"the reference voice is silent ({level:.0f} dBFS); record it louder")
    return samples


def check_voice_length(length_s: float, seconds: tuple[float, float] = VOICE_S) -> None:
    """Raise InputError for a reference voice that is too short or too long."""
    shortest, longest = seconds
    if not shortest <= length_s <= longest:
        raise InputError(
            f"the reference voice is {length_s:.2f} s long; {shortest:g} to {longest:g} s are taken"
            " (5 to 15 s of clear speech are best)"
        )


@functools.cache
def mel_bands(
    mels: int, n_fft: int = N_FFT, rate_hz: int = RATE_HZ, top_hz: int = RATE_HZ // 2
) -> NDArray[np.float64]:
    """Triangular filters on Slaney's scale up to top_hz, each of area one: [n_fft / 2 + 1, mels].

    The scale is linear up to 1 kHz (a mel is 200/3 Hz), logarithmic above (27 mels are a factor
    of 6.4), as in the Auditory Toolbox and librosa.
    """
    linear_top = 15.0  # 1 kHz in mels
    per_mel = np.log(6.4) / 27
    top = linear_top + np.log(top_hz / 1000) / per_mel
    points = np.linspace(0.0, top, mels + 2)
    hz = np.where(
        points < linear_top, points * 200 / 3, 1000 * np.exp((points - linear_top) * per_mel)
    )
    low, centre, high = hz[:-2], hz[1:-1], hz[2:]
    bins = np.linspace(0.0, rate_hz / 2, n_fft // 2 + 1)[:, None]
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * 2 / (high - low)


@functools.cache
def _hann() -> NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


def _log_power(sound: Array, mels: int) -> Array:
    """log10 of the mel power of each whole frame in sound: [(samples - 400) // 160 + 1, mels]."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, N_FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * _hann())) ** 2
    return np.log10(np.maximum(power @ mel_bands(mels), 1e-10)).astype(np.float32)


def _scaled(log_power: Array, floor: float) -> Array:
    """Raise to the floor, scale, and turn [frames, mels] into [mels, frames]."""
    scaled = (np.maximum(log_power, np.float32(floor)) + np.float32(4)) / np.float32(4)
    return np.ascontiguousarray(scaled.T)


def log_mel(samples: Array, mels: int = 80, *, floor: float | None = None) -> Array:
    """The spectrogram of a whole sound of up to 30 s: float32 [mels, ceil(samples / 160)].

    floor is that of the log10 power; None puts it 8 below the loudest value. A sound shorter than
    30 s counts as followed by silence, as Whisper has it, so its end is not mirrored.

    Raises:
        InputError: see `checked_sound`; or the sound is empty or longer than 30 s.
    """
    samples = checked_sound(samples)
    if not 0 < len(samples) <= PIECE:
        raise InputError(f"a spectrogram is of 1 to {PIECE} samples (30 s), not {len(samples)}")
    frames = -(-len(samples) // HOP)
    # The two frames after the last still hear its end, so the loudest value may be theirs.
    heard = min(frames + 2, PIECE // HOP)
    silence = min(heard * HOP + HALF, PIECE) - len(samples)
    padded = np.pad(np.pad(samples, (0, max(silence, 0))), HALF, mode="reflect")
    log_power = _log_power(padded, mels)[:heard]
    if floor is None:
        floor = float(log_power.max()) - DYNAMIC_RANGE
    return _scaled(log_power[:frames], floor)


def mirrored_log_mel(samples: Array, mels: int = 128) -> Array:
    """The spectrogram that speech tokenizers read: float32 [mels, samples // 160].

    As `log_mel`, but the end of the sound is mirrored as its beginning is, only whole hops count,
    and the loudest value is one of those that are shown.

    Raises:
        InputError: see `checked_sound`; or the sound is longer than 30 s, or too short to mirror.
    """
    samples = checked_sound(samples)
    if not HALF < len(samples) <= PIECE:
        raise InputError(
            f"a spectrogram is of {HALF + 1} to {PIECE} samples (30 s), not {len(samples)}"
        )
    log_power = _log_power(np.pad(samples, HALF, mode="reflect"), mels)[:-1]
    return _scaled(log_power, float(log_power.max()) - DYNAMIC_RANGE)


class StreamingMel:
    """The spectrogram of a stream, a second at a time, as if computed over all that is remembered.

    Each second gives a window of 104 frames: two that the second before has shown already, its own
    hundred, and two of the next (which is why 5 ms of sound always wait). The first window has two
    frames of zeros in front.

    The floor is fixed until five seconds are remembered and dynamic from then on, over what is
    remembered: up to 30 s, whose oldest 10 s go when they are full. Only new frames are
    transformed. Of old ones the loudest value is enough, and the last four frames themselves.
    """

    def __init__(self, mels: int = 80) -> None:
        self.mels = mels
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next second is the first."""
        self._waiting: Array = np.zeros(LEAD, np.float32)
        self._sound: Array = np.zeros(PIECE, np.float32)
        self._samples = 0  # remembered in _sound
        self._loudest: Array = np.zeros(PIECE // HOP, np.float32)
        self._frames = 0  # complete ones over what is remembered, as in _loudest
        self._recent: Array = np.zeros((2 * CONTEXT, self.mels), np.float32)
        self._seconds = 0

    @property
    def seconds(self) -> int:
        """Seconds heard since the stream began."""
        return self._seconds

    def push(self, second: Array) -> Array:
        """Take one second, float32 [16000] in -1..1, and return its window, float32 [mels, 104].

        Raises:
            InputError: not one second, or see `checked_sound`; the stream is as before.
        """
        second = checked_sound(second, what="a second of sound")
        if len(second) != SECOND:
            raise InputError(f"a second of sound has {len(second)} samples, not {SECOND}")
        opening = self._seconds == 0
        ready = np.concatenate([self._waiting, second])
        size = FIRST_SECOND if opening else SECOND
        self._waiting = ready[size:]
        fresh = self._hear(ready[:size])
        window = np.concatenate([self._recent, fresh])[-WINDOW_FRAMES:]
        self._recent = window[-2 * CONTEXT :]
        self._seconds += 1
        shown = _scaled(window, self._floor())
        if opening:
            shown[:, :CONTEXT] = 0.0
        return shown

    def _hear(self, sound: Array) -> Array:
        """Remember sound; return the log power of the frames that it completes."""
        if self._samples + len(sound) >= PIECE:
            self._slide()
        start = self._samples
        self._samples += len(sound)
        self._sound[start : self._samples] = sound
        done, self._frames = self._frames, (self._samples - HALF) // HOP + 1
        if done:
            heard = self._sound[done * HOP - HALF : self._samples]
        else:
            heard = np.pad(self._sound[: self._samples], (HALF, 0), mode="reflect")
        fresh = _log_power(heard, self.mels)
        self._loudest[done : self._frames] = fresh.max(axis=1)
        return fresh

    def _slide(self) -> None:
        """Drop the oldest 10 s. The first two frames of the rest now reach over its start."""
        kept, frames = self._samples - SLIDE, self._frames - SLIDE // HOP
        self._sound[:kept] = self._sound[SLIDE : self._samples].copy()
        self._loudest[:frames] = self._loudest[SLIDE // HOP : self._frames].copy()
        self._samples, self._frames = kept, frames
        edge = np.pad(self._sound[: HOP + HALF], (HALF, 0), mode="reflect")
        self._loudest[:2] = _log_power(edge, self.mels).max(axis=1)

    def _floor(self) -> float:
        if self._samples < DYNAMIC_FROM:
            return FIXED_FLOOR
        # The whole spectrogram has one frame more, which reaches over the end of the sound.
        end = np.pad(
            self._sound[self._frames * HOP - HALF : self._samples], (0, HALF), mode="reflect"
        )
        loudest = max(self._loudest[: self._frames].max(), _log_power(end, self.mels)[0].max())
        return float(loudest) - DYNAMIC_RANGE

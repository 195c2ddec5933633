"""The way of sound from a mouth to the robot's samples: room, distance, noise and microphone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.messages import MIC_RATE_HZ
from minicpmo_ros.nano.noises import HELD_OUT_NOISES, NOISES, noise
from minicpmo_ros.nano.pieces import active_rms

QUIETEST_DBFS, LOUDEST_DBFS = -40.0, -14.0
_COLOUR_TAPS = 512
_FULL_SCALE = np.float32(32768)


@dataclass(frozen=True, eq=False)
class Room:
    """One room with one microphone, for one episode.

    response: float32 [taps], room and microphone, the direct sound first. level_dbfs: RMS of the
    track's loud parts at the microphone. noises: kind, and level of the loud parts of the track
    over that of its own, in dB. clip: sound is cut at so many times the RMS of the track's loud
    parts; 0: never. line: float32 [taps], a narrow line (telephone) that all goes through.
    speech: of other people, for babble.
    """

    response: np.ndarray
    level_dbfs: float = -26.0
    noises: tuple[tuple[str, float], ...] = ()
    clip: float = 0.0
    line: np.ndarray | None = None
    speech: tuple[np.ndarray, ...] = ()

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        held_out: bool = False,
        speech: Sequence[np.ndarray] = (),
    ) -> Room:
        """A room by chance. held_out: with kinds of noise that training never has. speech: float32
        pieces of which babble is made; without them there is none."""
        kinds = HELD_OUT_NOISES if held_out else NOISES
        kinds = tuple(kind for kind in kinds if kind != "babble" or speech)
        count = int(rng.choice(3, p=(0.15, 0.6, 0.25)))
        noises = []
        for index in range(count):
            lowest = 5.0 if index == 0 else 12.0
            noises.append((kinds[int(rng.integers(len(kinds)))], float(rng.uniform(lowest, 40))))
        return cls(
            _convolve(_echoes(rng), _colour(rng)),
            float(rng.uniform(QUIETEST_DBFS, LOUDEST_DBFS)),
            tuple(noises),
            float(10 ** (rng.uniform(3, 10) / 20)) if rng.random() < 0.08 else 0.0,
            _narrow_line(rng) if rng.random() < 0.08 else None,
            tuple(speech),
        )

    def hear(self, track: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What the robot's microphone gives of a whole episode: float32 [n], in steps of int16.

        track: float32 [n] mono at 16 kHz, all that sounds in the room; its level does not matter,
        that of its parts to each other does. Nothing is delayed, and echoes after its end are cut.
        A silent track gives the noise that would be there under speech. Raises `ConfigError` for a
        track that is not of one dimension.
        """
        if track.ndim != 1:
            raise ConfigError(f"track of shape {track.shape}: must be mono, of one dimension")
        if not len(track):
            return np.zeros(0, np.float32)
        heard = _convolve(track.astype(np.float32, copy=False), self.response)[: len(track)]
        level = 10 ** (self.level_dbfs / 20)
        loud = active_rms(heard)
        heard *= np.float32(level / loud if loud > 0 else 0.0)
        for kind, snr_db in self.noises:
            sound = noise(kind, len(track), rng, self.speech)
            rms = active_rms(sound)
            heard += sound * np.float32(level * 10 ** (-snr_db / 20) / rms if rms > 0 else 0.0)
        if self.line is not None:
            heard = _convolve(heard, self.line)[: len(track)]
        if self.clip:
            limit = np.float32(level * self.clip)
            np.clip(heard, -limit, limit, out=heard)
        heard *= _FULL_SCALE
        np.rint(heard, out=heard)
        np.clip(heard, -32768, 32767, out=heard)
        heard /= _FULL_SCALE
        return heard


# What comes is heard as it is.
OPEN_AIR = Room(np.ones(1, np.float32))


def warp(samples: np.ndarray, factor: float) -> np.ndarray:
    """float32 [n] at 16 kHz played `factor` times as fast: [n / factor].

    Speed, pitch and formants move together, as if from a shorter (above 1) or longer vocal tract
    that speaks faster or slower. Times in it are to be divided by factor. Raises `ConfigError`
    for a factor outside 0.5 to 2.
    """
    if not 0.5 <= factor <= 2.0:
        raise ConfigError(f"warp factor is {factor}: must be 0.5 to 2")
    if factor == 1.0 or not len(samples):
        return samples
    resampled: np.ndarray = soxr.resample(
        samples.astype(np.float32, copy=False), MIC_RATE_HZ * factor, MIC_RATE_HZ, quality="HQ"
    )
    return resampled


def _echoes(rng: np.random.Generator) -> np.ndarray:
    """Response of a room: the direct sound, a few early echoes, a tail that fades by 60 dB."""
    if rng.random() < 0.3:
        return np.ones(1, np.float32)
    t60_s = rng.uniform(0.12, 0.8)
    taps = int(t60_s * MIC_RATE_HZ)
    time_s = np.arange(taps) / MIC_RATE_HZ
    tail = rng.standard_normal(taps) * np.exp(-6.9 / t60_s * time_s)
    # Walls and air take the high frequencies first.
    soft = np.convolve(tail, np.full(8, 1 / 8))[:taps]
    dark = np.minimum(1, time_s / (0.5 * t60_s))
    tail = (1 - dark) * tail + 2 * dark * soft
    tail[: int(rng.uniform(0.003, 0.02) * MIC_RATE_HZ)] = 0
    direct_db = rng.uniform(-2, 16)
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.square(tail).sum())
    for _ in range(int(rng.integers(2, 9))):
        place = int(rng.uniform(0.001, 0.05) * MIC_RATE_HZ)
        tail[place] += rng.choice((-1, 1)) * rng.uniform(0.05, 0.5) * np.exp(-place / 500)
    tail[0] = 1
    return tail.astype(np.float32)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Response of a microphone: gains at octaves, without delay."""
    octaves = 62.5 * 2.0 ** np.arange(8)
    gains_db = rng.normal(0, 3.5, 8) + rng.uniform(-2, 2) * np.arange(-4, 4)
    # Small microphones hear little of the lowest octaves.
    gains_db[: int(rng.integers(0, 3))] -= rng.uniform(6, 20)

    def gains(frequencies: np.ndarray) -> np.ndarray:
        places = np.log2(np.maximum(frequencies, 1.0))
        curve: np.ndarray = np.interp(places, np.log2(octaves), gains_db)
        return curve

    return _without_delay(gains)


def _narrow_line(rng: np.random.Generator) -> np.ndarray:
    """Response of a telephone: steep below 300 and above 3400 Hz, or thereabouts."""
    low, high = rng.uniform(100, 350), rng.uniform(3_000, 4_000)

    def gains(frequencies: np.ndarray) -> np.ndarray:
        safe = np.maximum(frequencies, 1.0)
        below = -24 * np.maximum(0, np.log2(low / safe))
        above = -90 * np.maximum(0, np.log2(safe / high))
        curve: np.ndarray = np.maximum(below + above, -60)
        return curve

    return _without_delay(gains)


def _without_delay(gains_db: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The filter float32 [taps] of least delay with gains in dB of frequencies in Hz.

    Its phase follows from the logarithm of its gains: the part of their cepstrum before time 0 is
    folded onto the part after it.
    """
    size = 2 * _COLOUR_TAPS
    frequencies = np.fft.rfftfreq(size, 1 / MIC_RATE_HZ)
    cepstrum = np.fft.irfft(gains_db(frequencies) * (np.log(10) / 20), size)
    cepstrum[1 : size // 2] *= 2
    cepstrum[size // 2 + 1 :] = 0
    filter_taps = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)), size)
    return filter_taps[:_COLOUR_TAPS].astype(np.float32)


def _convolve(samples: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """float32 [n] with float32 [t]: [n + t - 1], in blocks that fit into a processor's cache."""
    if len(taps) == 1:
        return samples * taps[0]
    total = len(samples) + len(taps) - 1
    size = 1 << max(12, (4 * len(taps) - 1).bit_length())
    hop = size - len(taps) + 1
    count = -(-total // hop)
    padded = np.zeros((count - 1) * hop + size, np.float32)
    padded[len(taps) - 1 : len(taps) - 1 + len(samples)] = samples
    blocks = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    spectrum = np.fft.rfft(taps, size)
    made = np.fft.irfft(np.fft.rfft(blocks, axis=1) * spectrum, size, axis=1)
    return made[:, len(taps) - 1 :].reshape(-1)[:total].astype(np.float32, copy=False)

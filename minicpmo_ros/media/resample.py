"""Sample rate conversion with soxr: whole pieces at once, or a stream whose delay is known."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import soxr

from minicpmo_ros.errors import ConfigError

_MIN_RATE_HZ = 1_000
_MAX_RATE_HZ = 768_000


def resample(samples: np.ndarray, in_rate_hz: int, out_rate_hz: int) -> np.ndarray:
    """Convert a whole piece of sound, int16 [frames] or [frames, channels], without delay.

    Sample k of the result sounds k / out_rate_hz after the first sample of the input.
    """
    _check_rates(in_rate_hz, out_rate_hz)
    if in_rate_hz == out_rate_hz or not len(samples):
        return samples
    return _to_int16(soxr.resample(_to_float(samples), in_rate_hz, out_rate_hz, quality="HQ"))


class StreamResampler:
    """Converts a stream piece by piece; the result does not depend on how it is cut.

    Output sample k shows the input at frame `input_frame(k)`. soxr's variable-rate engine is used
    at a fixed ratio: it is as clean (images and aliases below -110 dB) and hands samples out
    7 to 30 ms after they went in, depending on the rates, where the block transforms of the
    fixed-rate engine hold them back for up to 120 ms.
    """

    def __init__(self, in_rate_hz: int, out_rate_hz: int, channels: int = 1) -> None:
        _check_rates(in_rate_hz, out_rate_hz)
        self.in_rate_hz = in_rate_hz
        self.out_rate_hz = out_rate_hz
        self.channels = channels
        self.delay_s = _filter_delay_s(in_rate_hz, out_rate_hz)
        self._frames_in = 0
        self._frames_out = 0
        self._engine = _engine(in_rate_hz, out_rate_hz, channels)

    @property
    def frames_out(self) -> int:
        """Output frames handed out so far."""
        return self._frames_out

    @property
    def pending_s(self) -> float:
        """Sound that went in and has not come out yet, in seconds."""
        return self._frames_in / self.in_rate_hz - self._frames_out / self.out_rate_hz

    def input_frame(self, output_frame: int) -> float:
        """The place in the input stream, in frames, of an output frame; both count from 0."""
        return (output_frame / self.out_rate_hz - self.delay_s) * self.in_rate_hz

    def output_frame(self, input_frame: int) -> float:
        """The place in the output stream, in frames, at which an input frame shows."""
        return (input_frame / self.in_rate_hz + self.delay_s) * self.out_rate_hz

    def process(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """Put in int16 [frames] or [frames, channels]; get what is ready, same layout.

        With `last` the stream ends: everything pending comes out, and a new stream begins.
        """
        self._frames_in += len(samples)
        if self._engine is None:
            converted = samples
        else:
            converted = _to_int16(self._engine.resample_chunk(_to_float(samples), last=last))
        self._frames_out += len(converted)
        if last:
            self.reset()
        return converted

    def reset(self) -> None:
        """Forget everything pending; the next sample is the first of a new stream."""
        self._frames_in = 0
        self._frames_out = 0
        self._engine = _engine(self.in_rate_hz, self.out_rate_hz, self.channels)


def _engine(in_rate_hz: int, out_rate_hz: int, channels: int) -> soxr.ResampleStream | None:
    if in_rate_hz == out_rate_hz:
        return None
    engine = soxr.ResampleStream(
        in_rate_hz, out_rate_hz, channels, dtype="float32", quality="HQ", vr=True
    )
    engine.set_io_ratio(in_rate_hz, out_rate_hz)
    return engine


@lru_cache
def _filter_delay_s(in_rate_hz: int, out_rate_hz: int) -> float:
    """Group delay of the engine for low frequencies: the centroid of its impulse response."""
    engine = _engine(in_rate_hz, out_rate_hz, 1)
    if engine is None:
        return 0.0
    # A raised cosine of 20 ms: band-limited, so that its centroid survives the rate conversion.
    length = in_rate_hz // 50
    centre = in_rate_hz // 10
    pulse = np.zeros(2 * centre + 1, dtype=np.float32)
    pulse[centre - length // 2 : centre - length // 2 + 2 * (length // 2) + 1] = np.hanning(
        2 * (length // 2) + 1
    )
    response = engine.resample_chunk(pulse, last=True).astype(np.float64)
    centroid_s = float(np.arange(len(response)) @ response / response.sum()) / out_rate_hz
    return centroid_s - (centre - length // 2 + length // 2) / in_rate_hz


def _check_rates(in_rate_hz: int, out_rate_hz: int) -> None:
    for rate_hz in (in_rate_hz, out_rate_hz):
        if not _MIN_RATE_HZ <= rate_hz <= _MAX_RATE_HZ:
            raise ConfigError(
                f"sample rate {rate_hz} Hz: must be {_MIN_RATE_HZ} to {_MAX_RATE_HZ} Hz"
            )


def _to_float(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32)


def _to_int16(samples: np.ndarray) -> np.ndarray:
    # Rounded here and not by soxr, whose integer output is dithered and so never the same twice.
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)

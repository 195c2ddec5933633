"""Sound that a report can play: spooled to disk while a bag is read, encoded at the end."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterator

import numpy as np

from minicpmo_ros.messages import NS_PER_MS, NS_PER_S
from minicpmo_ros.replay.report.view import Clip

CONVERSATION_HZ = 16_000
_BLOCK_S = 1


def mono(data: np.ndarray) -> np.ndarray:
    """int16 [frames] of int16 [frames] or [frames, channels]: the mean of the channels."""
    if data.ndim == 1:
        return data
    return data.mean(axis=1).round().astype(np.int16)


def resampled(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """int16 [n] at another rate."""
    if from_hz == to_hz or not len(samples):
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, from_hz, to_hz), np.int16)


class Track:
    """Mono sound placed by its stamps in a temporary file: int16 at the rate of its first chunk.

    Stamps that jitter by less than `jitter_ns` do not tear the sound. When the sound is longer than
    `most_s` seconds the file is dropped and `too_long` stays true.
    """

    def __init__(self, most_s: float, jitter_ns: int = 20 * NS_PER_MS) -> None:
        self.start_ns = 0
        self.rate_hz = 0
        self.too_long = False
        self._most_s = most_s
        self._jitter_ns = jitter_ns
        self._file: io.BufferedRandom | None = None
        self._next = 0
        self._frames = 0

    @property
    def duration_ns(self) -> int:
        return self._frames * NS_PER_S // self.rate_hz if self.rate_hz else 0

    def add(self, stamp_ns: int, samples: np.ndarray, rate_hz: int) -> None:
        """samples: int16 [n]."""
        if self.too_long or not len(samples):
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the track
            self.start_ns, self.rate_hz = stamp_ns, rate_hz
        samples = resampled(samples, rate_hz, self.rate_hz)
        at = round((stamp_ns - self.start_ns) * self.rate_hz / NS_PER_S)
        if abs(at - self._next) * NS_PER_S <= self._jitter_ns * self.rate_hz:
            at = self._next
        if at < 0:
            samples, at = samples[-at:], 0
        if (at + len(samples)) > self._most_s * self.rate_hz:
            self.too_long = True
            self._file.close()
            self._file, self._frames = None, 0
            return
        if at != self._next:
            self._file.seek(2 * at)
        self._file.write(np.ascontiguousarray(samples, "<i2").tobytes())
        self._next = at + len(samples)
        self._frames = max(self._frames, self._next)

    def read(self, start_ns: int, stop_ns: int) -> np.ndarray:
        """int16 [n] of that stretch, silence where nothing was added."""
        rate = self.rate_hz or CONVERSATION_HZ
        first = round((start_ns - self.start_ns) * rate / NS_PER_S)
        wanted = np.zeros(max(0, round((stop_ns - start_ns) * rate / NS_PER_S)), np.int16)
        begin, end = max(0, first), min(self._frames, first + len(wanted))
        if self._file is not None and begin < end:
            self._file.seek(2 * begin)
            wanted[begin - first : end - first] = np.frombuffer(
                self._file.read(2 * (end - begin)), "<i2"
            )
            self._file.seek(2 * self._next)
        return wanted


def conversation(left: Track, right: Track, wav_s: float) -> Clip | None:
    """Both tracks as stereo at 16 kHz, left the microphone and right the robot; None if both are
    empty. Up to `wav_s` seconds as WAV, which every browser plays; longer as Ogg Vorbis."""
    tracks = [t for t in (left, right) if t.duration_ns]
    if not tracks:
        return None
    start = min(t.start_ns for t in tracks)
    stop = max(t.start_ns + t.duration_ns for t in tracks)
    pieces = (
        np.stack([a[: min(len(a), len(b))], b[: min(len(a), len(b))]], axis=1)
        for a, b in zip(_blocks(left, start, stop), _blocks(right, start, stop), strict=True)
    )
    ms = (stop - start) / NS_PER_MS
    return encode(pieces, CONVERSATION_HZ, 2, start, ms, as_wav=ms <= wav_s * 1000)


def _blocks(track: Track, start_ns: int, stop_ns: int) -> Iterator[np.ndarray]:
    """The stretch second by second at 16 kHz; the blocks of two tracks have equal lengths."""
    for at in range(start_ns, stop_ns, _BLOCK_S * NS_PER_S):
        end = min(stop_ns, at + _BLOCK_S * NS_PER_S)
        if not track.duration_ns or track.rate_hz == CONVERSATION_HZ:
            yield track.read(at, end)
            continue
        # 20 ms more on either side, cut off again, so that no block's edge can be heard.
        edge = 20 * NS_PER_MS
        wide = resampled(track.read(at - edge, end + edge), track.rate_hz, CONVERSATION_HZ)
        skip = edge * CONVERSATION_HZ // NS_PER_S
        count = round((end - at) * CONVERSATION_HZ / NS_PER_S)
        yield wide[skip : skip + count]


def encode(
    blocks: Iterator[np.ndarray],
    rate_hz: int,
    channels: int,
    start_ns: int,
    duration_ms: float,
    as_wav: bool,
) -> Clip:
    """Blocks of int16 [n] or [n, channels] as WAV (PCM 16) or Ogg Vorbis."""
    import soundfile

    out = io.BytesIO()
    kind = (
        {"format": "WAV", "subtype": "PCM_16"}
        if as_wav
        else {
            "format": "OGG",
            "subtype": "VORBIS",
            "compression_level": 0.85,
        }
    )
    with soundfile.SoundFile(out, "w", samplerate=rate_hz, channels=channels, **kind) as file:
        for block in blocks:
            file.write(block)
    mime = "audio/wav" if as_wav else "audio/ogg"
    return Clip(mime, out.getvalue(), start_ns, duration_ms)


def data_uri(mime: str, data: bytes) -> str:
    """The bytes as an address that needs no network."""
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"

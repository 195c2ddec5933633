"""Pictures and sound of any video or sound file, each with its time in the file.

Sound files are read with soundfile; everything else with PyAV, which carries FFmpeg, as OpenCV
hears nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.resample import StreamResampler
from minicpmo_ros.messages import EMPTY_SAMPLES, MIC_RATE_HZ

log = logging.getLogger(__name__)

SOUND_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"}
# Time stamps of sound may be off by this much before it is taken for a gap.
GAP_S = 0.1
_BLOCK_FRAMES = 65_536


@dataclass(frozen=True, eq=False)
class Sound:
    """int16 [samples] mono at 16 kHz; at_s: time of the first one. It may lie before 0."""

    at_s: float
    samples: np.ndarray


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture not yet converted: `rgb()` gives uint8 [height, width, 3], upright."""

    at_s: float
    source: Any

    def rgb(self) -> np.ndarray:
        rgb: np.ndarray = self.source.to_ndarray(format="rgb24")
        # Phones store the picture as the sensor lies and say how to turn it.
        turns = round(getattr(self.source, "rotation", 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


class MediaFile(Protocol):
    """An open file. duration_s: None where the file does not say. damaged: packets left out."""

    duration_s: float | None
    has_pictures: bool
    has_sound: bool
    damaged: int

    def events(self) -> Iterator[Sound | Frame]:
        """Everything in the file, roughly in order of time."""

    def close(self) -> None: ...


def open_media(path: Path) -> MediaFile:
    """Raises `InputError` for what is missing, empty or no media file, or needs a package."""
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if not path.is_file():
        raise InputError(f"{path} is no file: a video or a sound file is wanted")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: a video or a sound file is wanted")
    if path.suffix.lower() in SOUND_SUFFIXES:
        return SoundFile(path)
    return FilmFile(path)


class SoundFile:
    """A wav, flac, ogg, mp3 ..."""

    has_pictures = False
    has_sound = True
    damaged = 0

    def __init__(self, path: Path) -> None:
        import soundfile

        try:
            self._file = soundfile.SoundFile(path)
        except (soundfile.SoundFileError, TypeError) as error:
            raise InputError(f"{path} cannot be read as a sound file ({error})") from error
        if self._file.frames == 0:
            self.close()
            raise InputError(f"{path} holds no sound")
        self.duration_s: float | None = self._file.frames / self._file.samplerate

    def events(self) -> Iterator[Sound]:
        resampler = StreamResampler(self._file.samplerate, MIC_RATE_HZ)
        # What comes out first is from before the first sample: the filter's delay.
        done = -round(resampler.delay_s * MIC_RATE_HZ)
        for samples in self._resampled(resampler):
            early = min(len(samples), max(0, -done))
            if len(samples) > early:
                yield Sound((done + early) / MIC_RATE_HZ, samples[early:])
            done += len(samples)

    def _resampled(self, resampler: StreamResampler) -> Iterator[np.ndarray]:
        for block in self._file.blocks(_BLOCK_FRAMES, dtype="float32", always_2d=True):
            yield resampler.process(_to_int16(block))
        yield resampler.process(EMPTY_SAMPLES, last=True)

    def close(self) -> None:
        self._file.close()


class FilmFile:
    """Whatever FFmpeg reads."""

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise InputError(
                f"reading {path.name} needs PyAV ({error}): pip install 'minicpmo_ros[video]' "
                "(or pip install av); wav, flac, ogg and mp3 need nothing more"
            ) from error
        self._av = av
        self._path = path
        self.damaged = 0
        try:
            self._file = av.open(str(path))
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(
                f"{path} is no video or sound file that FFmpeg can read ({error})"
            ) from error
        self._video = next((s for s in self._file.streams.video if not _is_cover(av, s)), None)
        self._audio = next(iter(self._file.streams.audio), None)
        self.has_pictures = self._video is not None
        self.has_sound = self._audio is not None
        if not (self.has_pictures or self.has_sound):
            self.close()
            raise InputError(f"{path} holds neither pictures nor sound")
        if self._video is not None:
            self._video.thread_type = "AUTO"
        duration = self._file.duration
        self.duration_s = None if duration is None else duration / av.time_base

    def events(self) -> Iterator[Sound | Frame]:
        streams = [stream for stream in (self._video, self._audio) if stream is not None]
        zero_s = min((_start_s(stream) for stream in streams), default=0.0)
        sound = _SoundTrack(self._av)
        index = 0
        for packet in self._file.demux(*streams):
            for frame in self._decode(packet):
                at_s = None if frame.time is None else frame.time - zero_s
                if packet.stream is self._audio:
                    yield from sound.add(frame, at_s)
                else:
                    if at_s is None:
                        rate = self._video.average_rate if self._video is not None else None
                        at_s = index / float(rate or 25)
                    index += 1
                    yield Frame(at_s, frame)
        yield from sound.drain()

    def _decode(self, packet: Any) -> list[Any]:
        """Frames of a packet; a damaged one is counted and the file goes on."""
        try:
            return list(packet.decode())
        except self._av.error.FFmpegError as error:
            if not self.damaged:
                log.warning("%s: a damaged packet is left out: %s", self._path, error)
            self.damaged += 1
            return []

    def close(self) -> None:
        self._file.close()


class _SoundTrack:
    """Decoded sound to 16 kHz mono. Times are counted in samples; a gap in the file begins anew."""

    def __init__(self, av: Any) -> None:
        self._av = av
        self._resampler: Any = None
        self._start_s = 0.0
        self._seconds_in = 0.0
        self._samples_out = 0

    def add(self, frame: Any, at_s: float | None) -> Iterator[Sound]:
        expected_s = self._start_s + self._seconds_in
        if at_s is not None and (self._resampler is None or abs(at_s - expected_s) > GAP_S):
            yield from self.drain()
            self._start_s = at_s
        self._seconds_in += frame.samples / frame.sample_rate
        if self._resampler is None:
            self._resampler = self._av.AudioResampler("s16", "mono", MIC_RATE_HZ)
        frame.pts = None  # the resampler would put in silence of its own for jumps
        yield from self._out(self._resampler.resample(frame))

    def drain(self) -> Iterator[Sound]:
        """What the resampler still holds; the next frame begins a new stretch."""
        if self._resampler is not None:
            with suppress(self._av.error.EOFError):
                yield from self._out(self._resampler.resample(None))
        self._resampler, self._seconds_in, self._samples_out = None, 0.0, 0

    def _out(self, frames: list[Any]) -> Iterator[Sound]:
        for frame in frames:
            samples = frame.to_ndarray().reshape(-1)
            if len(samples):
                yield Sound(self._start_s + self._samples_out / MIC_RATE_HZ, samples)
                self._samples_out += len(samples)


def _start_s(stream: Any) -> float:
    known = stream.start_time is not None and stream.time_base is not None
    return float(stream.start_time * stream.time_base) if known else 0.0


def _is_cover(av: Any, stream: Any) -> bool:
    """The cover picture of an album is no video."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _to_int16(block: np.ndarray) -> np.ndarray:
    """float32 [frames, channels], full scale 1, to int16 [frames] mono; NaN and infinity too."""
    mono = np.nan_to_num(block.mean(axis=1), nan=0.0, posinf=1.0, neginf=-1.0)
    return np.clip(np.rint(mono * 32768.0), -32768, 32767).astype(np.int16)

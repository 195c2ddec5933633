"""Any video or sound file becomes a bag: as if a robot's camera and microphone had recorded it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.media.image import resize_to_fit
from minicpmo_ros.messages import MIC_RATE_HZ, NS_PER_S, AudioChunk
from minicpmo_ros.replay.bag_writer import JPEG_QUALITY, BagWriter
from minicpmo_ros.replay.media_file import Frame, Sound, open_media
from minicpmo_ros.replay.progress import Progress, no_progress
from minicpmo_ros.topics import IMAGE_COMPRESSED, MIC

START_NS = 1_767_225_600 * NS_PER_S
"""2026-01-01 00:00 UTC: bags made from files begin here, so that making one twice is the same."""

CHUNK = MIC_RATE_HZ // 10


@dataclass(frozen=True)
class MediaSummary:
    """What became of a file: pictures, seconds of sound, and what was missing or damaged."""

    bag: Path
    pictures: int
    sound_s: float
    notes: tuple[str, ...] = ()


def bag_from_media(
    path: str | Path,
    out: str | Path,
    *,
    rate_hz: float = 10.0,
    max_side: int = 1280,
    tail_s: float = 2.0,
    start_ns: int = START_NS,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> MediaSummary:
    """Write a bag of a file's pictures (at most rate_hz of them a second) and sound (16 kHz mono).

    Pictures are JPEG on image_raw/compressed, scaled down to max_side pixels and stamped with their
    time in the file; a slower film keeps its own rate. Sound is cut into chunks of 100 ms on
    audio/mic, recorded, as from a microphone, when the last sample is in. Where there is sound,
    tail_s of silence and of the last picture follow the end of the file: without them its last
    words would have no end that a robot could answer. Raises `InputError` for a file that holds
    nothing to write, or where out exists; `ConfigError` for an absurd rate.
    """
    if not (math.isfinite(rate_hz) and 0.01 <= rate_hz <= 1000):
        raise ConfigError(f"rate_hz is {rate_hz}: must be 0.01 to 1000 pictures a second")
    if max_side < 16:
        raise ConfigError(f"max_side is {max_side}: must be at least 16 pixels")
    if not 0 <= tail_s <= 60:
        raise ConfigError(f"tail_s is {tail_s}: must be 0 to 60 s of silence")
    path = Path(path)
    media = open_media(path)
    try:
        with BagWriter(out, overwrite=overwrite) as bag:
            chunker = _Chunker(start_ns)
            taker = _PictureTaker(bag, rate_hz, max_side, start_ns)
            for event in media.events():
                progress(event.at_s)
                if isinstance(event, Sound):
                    _write_all(bag, chunker.add(event))
                else:
                    taker.add(event)
            _write_all(bag, chunker.flush())
            pictures = bag.counts.get(IMAGE_COMPRESSED.name, 0)
            chunks = bag.counts.get(MIC.name, 0)
            if chunks:
                _write_all(bag, chunker.silence(math.ceil(tail_s * MIC_RATE_HZ / CHUNK)))
                taker.stand_still(tail_s)
    finally:
        media.close()
    if not (pictures or chunks):
        shutil.rmtree(bag.path)
        raise InputError(f"{path} could not be decoded: not one picture or sample came out of it")
    notes = []
    if not pictures:
        notes.append("no pictures in the file")
    if not chunks:
        notes.append("no sound in the file")
    if media.damaged:
        notes.append(f"{media.damaged} damaged packets left out")
    return MediaSummary(bag.path, pictures, chunks * CHUNK / MIC_RATE_HZ, tuple(notes))


class _PictureTaker:
    """Takes pictures of a film at a rate, as a slower camera would."""

    def __init__(self, bag: BagWriter, rate_hz: float, max_side: int, start_ns: int) -> None:
        self._bag = bag
        self._period_s = 1.0 / rate_hz
        self._max_side = max_side
        self._start_ns = start_ns
        self._due_s: float | None = None
        self._last_s = 0.0
        self._last_jpeg = b""

    def add(self, frame: Frame) -> None:
        if self._due_s is not None and frame.at_s < self._due_s - 1e-6:
            return
        # The next one is due a period after this one was: late frames do not add up.
        due_s = frame.at_s if self._due_s is None else self._due_s
        self._due_s = max(due_s, frame.at_s - self._period_s) + self._period_s
        rgb = resize_to_fit(frame.rgb(), self._max_side, self._max_side)
        self._last_s, self._last_jpeg = frame.at_s, encode_jpeg(rgb, JPEG_QUALITY)
        self._write(frame.at_s)

    def stand_still(self, seconds: float) -> None:
        """The last picture goes on for so long."""
        if self._last_jpeg:
            for i in range(1, round(seconds / self._period_s) + 1):
                self._write(self._last_s + i * self._period_s)

    def _write(self, at_s: float) -> None:
        at_ns = self._start_ns + round(at_s * NS_PER_S)
        self._bag.write_jpeg(at_ns, at_ns, self._last_jpeg)


def _write_all(bag: BagWriter, chunks: Iterator[AudioChunk]) -> None:
    for chunk in chunks:
        bag.write(MIC, chunk.end_ns, chunk)


class _Chunker:
    """Cuts sound into chunks of 100 ms; where the file has a gap, a new row of chunks begins."""

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._sequence = 0
        self._held: list[np.ndarray] = []
        self._held_samples = 0
        self._first_ns = start_ns
        self._written = 0

    def add(self, sound: Sound) -> Iterator[AudioChunk]:
        at_ns = self._start_ns + round(sound.at_s * NS_PER_S)
        if abs(at_ns - self._at_ns(self._held_samples)) > NS_PER_S // MIC_RATE_HZ:
            yield from self.flush()
            self._first_ns, self._written = at_ns, 0
        self._held.append(sound.samples)
        self._held_samples += len(sound.samples)
        while self._held_samples >= CHUNK:
            joined = np.concatenate(self._held)
            self._held, self._held_samples = [joined[CHUNK:]], len(joined) - CHUNK
            yield self._chunk(joined[:CHUNK])

    def flush(self) -> Iterator[AudioChunk]:
        """The rest, filled up with silence to a whole chunk."""
        if self._held_samples:
            rest = np.concatenate([*self._held, np.zeros(CHUNK - self._held_samples, np.int16)])
            self._held, self._held_samples = [], 0
            yield self._chunk(rest)

    def silence(self, chunks: int) -> Iterator[AudioChunk]:
        for _ in range(chunks):
            yield self._chunk(np.zeros(CHUNK, np.int16))

    def _chunk(self, data: np.ndarray) -> AudioChunk:
        chunk = AudioChunk(self._at_ns(0), data, MIC_RATE_HZ, self._sequence)
        self._sequence += 1
        self._written += len(data)
        return chunk

    def _at_ns(self, ahead: int) -> int:
        """Stamp of the sample `ahead` of the next one to be written."""
        return self._first_ns + round((self._written + ahead) * NS_PER_S / MIC_RATE_HZ)

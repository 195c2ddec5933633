"""Microphones without a device, for tests and machines that have none: a sound file, or silence."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.microphone import MicConfig, Microphone, MicStatus, mono
from minicpmo_ros.media.resample import StreamResampler
from minicpmo_ros.media.sound_file import open_sound
from minicpmo_ros.messages import EMPTY_SAMPLES, NS_PER_S, AudioChunk

_NAP_S = 0.005
# A reader further behind than this is not late: the clock was set, or the machine slept.
_JUMP_NS = 5 * NS_PER_S


class _PacedMicrophone(Microphone):
    """Hands out a chunk when the clock passes its end, as a device would."""

    def __init__(self, config: MicConfig, clock: Callable[[], int]) -> None:
        super().__init__(config, clock)
        self._closed = threading.Event()
        self._closed.set()
        self._start_ns: int | None = None
        self._frames = 0
        self._jumps = 0

    def open(self) -> None:
        self._start_ns = None
        self._frames = 0
        self._closed.clear()

    def read(self, timeout_s: float) -> AudioChunk | None:
        left_s = timeout_s
        while not self._closed.is_set():
            wait_s = self._wait_s()
            if wait_s <= 0.0:
                return self._next()
            if left_s <= 0.0:
                return None
            # Short naps: simulated time runs at any speed.
            nap_s = min(wait_s, left_s, _NAP_S)
            self._closed.wait(nap_s)
            left_s -= nap_s
        return None

    def close(self) -> None:
        self._closed.set()

    @property
    def status(self) -> MicStatus:
        return MicStatus(
            self.config.source,
            state="closed" if self._closed.is_set() else "running",
            rate_hz=self.config.rate_hz,
            channels=1,
            chunks=self._sequence,
            jumps=self._jumps,
        )

    @abstractmethod
    def _samples(self, frames: int) -> np.ndarray:
        """The next frames, int16 [frames]; fewer at the end, none after it."""

    def _wait_s(self) -> float:
        """Time of the clock until the end of the next chunk."""
        now_ns = self._clock()
        if now_ns <= 0:
            return _NAP_S  # simulated time has not begun
        if self._start_ns is None:
            self._start_ns = now_ns
        ahead_ns = self._stamp_ns(self._frames + self.config.chunk_frames) - now_ns
        if not -_JUMP_NS < ahead_ns < _JUMP_NS:
            # The chunk that is due now goes on from here; its stamp tells of the jump.
            self._start_ns -= ahead_ns
            self._jumps += 1
            return 0.0
        return ahead_ns / NS_PER_S

    def _stamp_ns(self, frame: int) -> int:
        assert self._start_ns is not None
        return self._start_ns + frame * NS_PER_S // self.config.rate_hz

    def _next(self) -> AudioChunk | None:
        samples = self._samples(self.config.chunk_frames)
        if not len(samples):
            # The end of the file: no reason to come back in a hurry.
            self._closed.wait(_NAP_S)
            return None
        stamp_ns = self._stamp_ns(self._frames)
        self._frames += len(samples)
        return self._chunk(stamp_ns, samples)


class SilenceMicrophone(_PacedMicrophone):
    """Zeros at the pace of the clock."""

    def _samples(self, frames: int) -> np.ndarray:
        return np.zeros(frames, dtype=np.int16)


class FileMicrophone(_PacedMicrophone):
    """A wav, flac or ogg file of any rate and channel count, as if it were heard now."""

    def __init__(self, config: MicConfig, clock: Callable[[], int]) -> None:
        super().__init__(config, clock)
        self._file: Any = None
        self._resampler: StreamResampler | None = None
        self._ready = EMPTY_SAMPLES
        self._ended = False

    def open(self) -> None:
        """Raises InputError where the file is missing, empty, or not sound."""
        self._file = open_sound(self.config.path)
        if self.config.channel >= self._file.channels:
            raise InputError(
                f"{self.config.path} has {self._file.channels} channels: there is no channel "
                f"{self.config.channel} in it"
            )
        self._resampler = StreamResampler(self._file.samplerate, self.config.rate_hz)
        self._ready = EMPTY_SAMPLES
        self._ended = False
        super().open()

    def close(self) -> None:
        super().close()
        file, self._file = self._file, None
        if file is not None:
            file.close()

    @property
    def status(self) -> MicStatus:
        status = super().status
        file = self._file
        if file is None:
            return status
        ended = self._ended and not len(self._ready)
        return MicStatus(
            self.config.source,
            state="ended" if ended else status.state,
            device=self.config.path,
            rate_hz=file.samplerate,
            channels=file.channels,
            chunks=status.chunks,
            jumps=status.jumps,
        )

    def _samples(self, frames: int) -> np.ndarray:
        pieces = [self._ready]
        count = len(self._ready)
        while count < frames and not self._ended:
            pieces.append(self._decode())
            count += len(pieces[-1])
        joined = np.concatenate(pieces)
        self._ready = joined[frames:]
        return joined[:frames]

    def _decode(self) -> np.ndarray:
        """A tenth of a second of the file at our rate; at its end back to the start, or the end."""
        file, resampler = self._file, self._resampler
        if file is None or resampler is None:  # closed by another thread
            self._ended = True
            return EMPTY_SAMPLES
        try:
            block = file.read(file.samplerate // 10, dtype="float32", always_2d=True)
        except RuntimeError as error:
            raise InputError(f"{self.config.path} is damaged: {error}") from error
        if len(block):
            # In float and scaled here: libsndfile does not scale float files to integers.
            whole = np.clip(np.rint(block * 32768.0), -32768, 32767).astype(np.int16)
            return resampler.process(mono(whole, self.config.channel))
        if self.config.loop:
            file.seek(0)
            return EMPTY_SAMPLES
        self._ended = True
        return resampler.process(EMPTY_SAMPLES, last=True)

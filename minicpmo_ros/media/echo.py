"""The robot's own voice, taken out of what its microphone hears.

WebRTC's canceller (livekit's AudioProcessingModule) gets two streams in step: what was played
(audio/played, stamped at the DAC) and what was captured (stamped at the ADC). Both are laid on one
time grid by their stamps; where nothing was played the reference is silence.

Measured with simulated rooms: echoes that follow the stamps by -4 to 500 ms are found; they lose
20 dB or more in their first two seconds and 25 to 50 dB after that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minicpmo_ros.errors import ConfigError, DeviceError, InputError
from minicpmo_ros.media.played_reference import TOLERANCE_NS, PlayedReference
from minicpmo_ros.messages import (
    EMPTY_SAMPLES,
    MIC_RATE_HZ,
    NS_PER_MS,
    NS_PER_S,
    SPEECH_RATE_HZ,
    AudioChunk,
)

MODES = ("off", "on", "device")
FRAME_MS = 10

# A microphone that steps back further than this has a new clock.
_NEW_CLOCK_NS = NS_PER_S
# A played stamp further ahead of the microphone than any speaker's buffer is of another clock.
_HORIZON_NS = 10 * NS_PER_S
# Stamps that are corrected by less than this while the robot speaks have moved, the echo has not.
_HELD_NS = 40 * NS_PER_MS
# What the module itself delays the microphone by (measured; exact at 16 kHz).
_CANCELLING_NS = 8 * NS_PER_MS
_SUPPRESSING_NS = 6 * NS_PER_MS


@dataclass(frozen=True)
class EchoConfig:
    """How the microphone is cleaned.

    mode: "on" here, "device" where the sound device or the system does it, "off" nowhere.
    noise_suppression: also lower steady noise (in every mode). delay_ms: how much later than its
    stamps say the played sound reaches the microphone at the least, -200 to 500; the canceller
    finds up to 500 ms more by itself, but an echo more than 4 ms earlier it cannot take out.
    """

    mode: str = "on"
    noise_suppression: bool = False
    delay_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"echo mode is '{self.mode}': must be one of {', '.join(MODES)}")
        if not -200.0 <= self.delay_ms <= 500.0:
            raise ConfigError(f"echo delay_ms is {self.delay_ms}: must be -200 to 500")


@dataclass
class EchoStats:
    """Counters for diagnostics, in ms of sound where the name says so.

    reference_ms: sound that was used as reference. late_ms: played sound that came after the
    microphone of its time was cleaned, and so was of no use. foreign_ms: played sound whose stamps
    belong to another clock. gaps: jumps of the microphone's stamps. reduction_db: by how much the
    microphone got quieter while the robot spoke, over its last second or so; less while a person
    speaks too; NaN until it has spoken.
    """

    reference_ms: float = 0.0
    late_ms: float = 0.0
    foreign_ms: float = 0.0
    gaps: int = 0
    reduction_db: float = float("nan")


class EchoCanceller:
    """Cleans a stream of microphone chunks; the same chunks in the same order give the same bytes.

    Mono int16 at rate_hz (16, 32 or 48 kHz). Chunks of both streams may have any length; WebRTC
    works in 10 ms, so microphone chunks of whole 10 ms pass without waiting for one another. Not
    thread-safe: call it from one thread, or under one lock.

    Where nothing is to be done (off or device, without noise suppression) chunks pass untouched.
    Otherwise the cleaned samples lie `delay_ns` later in their chunk than the captured ones.

    Raises `DeviceError` where livekit is missing, `InputError` for chunks that cannot be used.
    """

    def __init__(self, config: EchoConfig, rate_hz: int = MIC_RATE_HZ) -> None:
        if rate_hz not in (16_000, 32_000, 48_000):
            raise ConfigError(f"echo rate_hz is {rate_hz}: must be 16000, 32000 or 48000")
        self.config = config
        self.rate_hz = rate_hz
        self.stats = EchoStats()
        self._cancels = config.mode == "on"
        self._reference = PlayedReference(SPEECH_RATE_HZ)
        self._delay_ns = round(config.delay_ms * NS_PER_MS)
        self._expected_ns: int | None = None
        self._read_index: int | None = None
        self._energy = [0.0, 0.0]
        self._frame = rate_hz * FRAME_MS // 1000
        self._uncleaned = self._ready = EMPTY_SAMPLES
        self._open()

    @property
    def delay_ns(self) -> int:
        """By how much the cleaned sound is later than the captured sound under the same stamp.

        It grows once by up to 10 ms when a chunk comes that is not of whole 10 ms.
        """
        delay_ns = (len(self._uncleaned) + len(self._ready)) * NS_PER_S // self.rate_hz
        delay_ns += _CANCELLING_NS if self._cancels else 0
        return delay_ns + (_SUPPRESSING_NS if self.config.noise_suppression else 0)

    @property
    def reference_end_ns(self) -> int | None:
        """Up to when it is known what was played; None before the first played chunk.

        A caller who knows that the robot speaks may hold a microphone chunk back until this has
        reached the chunk's end.
        """
        return self._reference.end_ns

    def reset(self) -> None:
        """Forget the room, both streams and the counters."""
        self.stats = EchoStats()
        self._reference.clear()
        self._expected_ns = self._read_index = None
        self._energy = [0.0, 0.0]
        self._uncleaned = self._ready = EMPTY_SAMPLES
        self._open()

    def played(self, chunk: AudioChunk) -> None:
        """Take what the speaker plays: any rate, mono or interleaved channels."""
        if not self._cancels or not len(chunk.data):
            return
        _check_samples("played", chunk)
        cleaned_ns = self._expected_ns
        if cleaned_ns is not None:
            heard_ns = cleaned_ns - self._delay_ns
            if chunk.stamp_ns > heard_ns + _HORIZON_NS:
                self.stats.foreign_ms += chunk.duration_ns / NS_PER_MS
                return
            late_ns = min(max(heard_ns - chunk.stamp_ns, 0), chunk.duration_ns)
            self.stats.late_ms += late_ns / NS_PER_MS
        self._reference.add(chunk)

    def clean(self, chunk: AudioChunk) -> AudioChunk:
        """Take the robot's voice out of a microphone chunk; stamp and length stay as they are."""
        if self._module is None:
            return chunk
        self._check_capture(chunk)
        if not len(chunk.data):
            return chunk
        self._follow(chunk.stamp_ns)
        captured = np.concatenate([self._uncleaned, chunk.data])
        whole = len(captured) - len(captured) % self._frame
        begin_ns = chunk.stamp_ns - len(self._uncleaned) * NS_PER_S // self.rate_hz
        self._uncleaned = captured[whole:]
        cleaned = self._clean_frames(captured[:whole].reshape(-1, self._frame), begin_ns)
        missing = len(chunk.data) - len(self._ready) - len(cleaned)
        silence = np.zeros(max(missing, 0), dtype=np.int16)
        ready = np.concatenate([silence, self._ready, cleaned])
        self._ready = ready[len(chunk.data) :]
        self._expected_ns = chunk.end_ns
        return replace(chunk, data=ready[: len(chunk.data)])

    def _clean_frames(self, captured: np.ndarray, begin_ns: int) -> np.ndarray:
        """Clean int16 [frames, 10 ms] captured from begin_ns on; int16 [samples]."""
        cleaned = np.empty_like(captured)
        reference = self._next_reference(begin_ns, len(captured))
        for k in range(len(captured)):
            if reference is not None:
                self._process(reference[k], self._reference.rate_hz, reverse=True)
            cleaned[k] = self._process(captured[k], self.rate_hz, reverse=False)
        if reference is not None:
            self._measure(reference, captured, cleaned)
        return cleaned.reshape(-1)

    def _check_capture(self, chunk: AudioChunk) -> None:
        _check_samples("microphone", chunk)
        if chunk.sample_rate != self.rate_hz or chunk.data.ndim != 1:
            raise InputError(
                f"microphone chunk of {chunk.sample_rate} Hz with {chunk.channels} channels: "
                f"the echo canceller was made for {self.rate_hz} Hz mono"
            )

    def _follow(self, stamp_ns: int) -> None:
        """Notice a jump of the microphone's stamps; one back starts time anew."""
        if self._expected_ns is None:
            return
        step_ns = stamp_ns - self._expected_ns
        if abs(step_ns) > TOLERANCE_NS:
            self.stats.gaps += 1
            self._read_index = None
        if step_ns < -_NEW_CLOCK_NS:
            self._reference.clear()

    def _next_reference(self, begin_ns: int, frames: int) -> np.ndarray | None:
        """What was played from begin_ns on: int16 [frames, samples of 10 ms]."""
        if not self._cancels:
            return None
        samples = self._reference.rate_hz * FRAME_MS // 1000
        index = self._reference.index(begin_ns - self._delay_ns)
        if self._read_index is not None:
            # While the robot speaks the reference must not skip with stamps that scatter or are
            # corrected: a canceller that has learnt the echo would have to find it anew. While it
            # is silent nobody hears the grid follow.
            begin, end = self._read_index - samples * frames, self._read_index + samples * frames
            held = self._reference.near(index, self._read_index, _HELD_NS)
            if held and self._reference.sounds(begin, end):
                index = self._read_index
        data = self._reference.read(index, samples * frames)
        self._read_index = index + len(data)
        self._reference.forget(self._read_index)
        self.stats.reference_ms += int(np.count_nonzero(data)) / self._reference.rate_hz * 1000.0
        return data.reshape(frames, samples)

    def _measure(self, reference: np.ndarray, captured: np.ndarray, cleaned: np.ndarray) -> None:
        sounding = np.abs(reference.astype(np.int32)).max(axis=1) > 100
        for k in np.flatnonzero(sounding):
            # 100 frames of 10 ms: about a second of the robot's speech.
            for place, samples in enumerate((captured[k], cleaned[k])):
                power = float(np.mean(samples.astype(np.float64) ** 2))
                self._energy[place] += (power - self._energy[place]) / 100.0
        if self._energy[0] > 1.0:
            self.stats.reduction_db = 10.0 * math.log10(
                self._energy[0] / max(self._energy[1], 1e-2)
            )

    def _open(self) -> None:
        self._module: Any = None
        if not self._cancels and not self.config.noise_suppression:
            return
        try:
            from livekit import rtc
        except (ImportError, OSError) as error:
            raise DeviceError(
                f"echo cancellation needs livekit, which cannot be imported ({error}): install it "
                "with 'pip install livekit', or set echo mode to 'off' or 'device'"
            ) from error
        self._frame_class: Any = rtc.AudioFrame
        self._module = rtc.AudioProcessingModule(
            echo_cancellation=self._cancels, noise_suppression=self.config.noise_suppression
        )
        if self._cancels:
            # The streams are in step already; what remains is the room, which it finds itself.
            self._module.set_stream_delay_ms(0)

    def _process(self, samples: np.ndarray, rate_hz: int, reverse: bool) -> np.ndarray:
        frame = self._frame_class(bytearray(samples.tobytes()), rate_hz, 1, len(samples))
        if reverse:
            self._module.process_reverse_stream(frame)
        else:
            self._module.process_stream(frame)
        return np.frombuffer(frame.data, dtype=np.int16)


def _check_samples(name: str, chunk: AudioChunk) -> None:
    if chunk.data.dtype != np.int16 or chunk.data.ndim not in (1, 2):
        raise InputError(
            f"{name} chunk holds {chunk.data.dtype} with {chunk.data.ndim} dimensions: "
            "must be int16, [frames] or [frames, channels]"
        )

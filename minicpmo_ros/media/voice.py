"""Voice activity: when somebody speaks, in the time of the sound itself.

Sound of any rate and chunk size is cut into windows of 32 ms at 16 kHz; a model (Silero's network,
or energy) scores each, and a segmenter makes stretches of speech of the scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from minicpmo_ros.errors import ConfigError, DeviceError, InputError
from minicpmo_ros.media.energy import EnergyModel
from minicpmo_ros.media.loudness import rms_dbfs
from minicpmo_ros.media.resample import StreamResampler
from minicpmo_ros.media.silero import WINDOW, SileroModel
from minicpmo_ros.media.speech_segments import SpeechSegmenter, SpeechWindow
from minicpmo_ros.messages import (
    EMPTY_SAMPLES,
    MIC_RATE_HZ,
    NS_PER_MS,
    NS_PER_S,
    AudioChunk,
    VoiceActivity,
)

DETECTORS = ("auto", "silero", "energy")
# Smaller deviations of a stamp are rounding; larger ones move the time of what follows.
_ROUNDING_NS = NS_PER_MS
# Stamps scatter by so much without anything being lost.
_JITTER_NS = 20 * NS_PER_MS
# Sound so much older than what was heard last is a new time, not a chunk that comes again.
_NEW_TIME_NS = NS_PER_S


@dataclass(frozen=True)
class VoiceConfig:
    """How speech is found.

    detector: "silero", "energy", or "auto" for silero where it is installed and else energy.
    Thresholds are probabilities, start at or above stop. min_speech_ms: speech together before it
    counts; its start is back-dated all the same. min_silence_ms: a shorter pause ends nothing.
    """

    detector: str = "auto"
    start_threshold: float = 0.5
    stop_threshold: float = 0.35
    min_speech_ms: float = 96.0
    min_silence_ms: float = 300.0

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise ConfigError(
                f"voice detector is '{self.detector}': must be one of {', '.join(DETECTORS)}"
            )
        for name, low, high in (
            ("start_threshold", 0.01, 0.99),
            ("stop_threshold", 0.01, 0.99),
            ("min_speech_ms", 0.0, 2_000.0),
            ("min_silence_ms", 32.0, 10_000.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"voice {name} is {value}: must be {low} to {high}")
        if self.stop_threshold > self.start_threshold:
            raise ConfigError(
                f"voice stop_threshold is {self.stop_threshold}: must not be above "
                f"start_threshold, {self.start_threshold}"
            )


class SpeechModel(Protocol):
    """Scores one window of sound after the other."""

    name: str

    def probability(self, window: np.ndarray) -> float:
        """Of speech, 0 to 1, in int16 [512] at 16 kHz."""

    def reset(self) -> None: ...


class VoiceDetector:
    """Finds speech in a stream of chunks; how it is cut into chunks changes nothing.

    Stamps may scatter by 20 ms. A chunk that was heard already is ignored, an overlap is cut. A
    gap shorter than min_silence_ms counts as silence; a longer one, another sample rate, or time
    that goes back by more than a second ends speech that goes on, and everything begins anew.

    Raises `DeviceError` where the detector that was asked for cannot run, saying what to install.
    """

    def __init__(self, config: VoiceConfig | None = None, model: SpeechModel | None = None) -> None:
        """model: another one than config names."""
        self.config = config or VoiceConfig()
        self.fallback_reason = ""
        self._model = model or self._make_model()
        self._segmenter = SpeechSegmenter(
            self.config.start_threshold,
            self.config.stop_threshold,
            self.config.min_speech_ms,
            self.config.min_silence_ms,
        )
        self._probability = 0.0
        self._rate_hz = 0
        self._resampler = StreamResampler(MIC_RATE_HZ, MIC_RATE_HZ)
        self._pending = EMPTY_SAMPLES
        # Time of the first sample since everything began anew, and of the next one that is due.
        self._anchor_ns = 0
        self._expected_ns: int | None = None
        # Frames that came in, and samples at 16 kHz that were scored, since then.
        self._frames = 0
        self._heard = 0

    @property
    def detector(self) -> str:
        """The model at work: "silero" or "energy". `fallback_reason` says why not silero."""
        return self._model.name

    @property
    def probability(self) -> float:
        """Of speech in the last window; 0 before any."""
        return self._probability

    @property
    def speaking_since_ns(self) -> int | None:
        """Start of the stretch of speech that goes on; None while nobody speaks."""
        return self._segmenter.speaking_since_ns

    @property
    def voiced_until_ns(self) -> int:
        """End of the last window of speech within a stretch; 0 before any."""
        return self._segmenter.voiced_until_ns

    def reset(self) -> None:
        """Forget the sound, and without an event the speech that goes on; numbers go on."""
        self._segmenter.reset()
        self._probability = 0.0
        self._begin_anew()

    def feed(self, chunk: AudioChunk) -> list[VoiceActivity]:
        """Hear the next chunk; what started and stopped, in order. Raises `InputError`."""
        data = _mono(chunk)
        if not len(data):
            return []
        events: list[VoiceActivity] = []
        if self._expected_ns is not None:
            step_ns = chunk.stamp_ns - self._expected_ns
            gap_ns = round(self.config.min_silence_ms * NS_PER_MS)
            if chunk.sample_rate != self._rate_hz or not -_NEW_TIME_NS <= step_ns < gap_ns:
                events += self._end()
            elif chunk.end_ns <= self._expected_ns + min(_ROUNDING_NS, chunk.duration_ns // 2):
                return []
            elif step_ns < -_JITTER_NS:
                data = data[-step_ns * self._rate_hz // NS_PER_S :]
            elif step_ns > _JITTER_NS:
                missing = step_ns * self._rate_hz // NS_PER_S
                data = np.concatenate([np.zeros(missing, dtype=np.int16), data])
        if self._expected_ns is None:
            self._rate_hz = chunk.sample_rate
            self._resampler = StreamResampler(self._rate_hz, MIC_RATE_HZ)
            self._anchor_ns = chunk.stamp_ns
        self._frames += len(data)
        self._expected_ns = self._anchor_ns + self._frames * NS_PER_S // self._rate_hz
        if abs(chunk.end_ns - self._expected_ns) > _ROUNDING_NS:
            self._anchor_ns += chunk.end_ns - self._expected_ns
            self._expected_ns = chunk.end_ns
        return events + self._hear(self._resampler.process(data))

    def _hear(self, samples: np.ndarray) -> list[VoiceActivity]:
        events = []
        pending = np.concatenate([self._pending, samples])
        whole = len(pending) - len(pending) % WINDOW
        for begin in range(0, whole, WINDOW):
            window = pending[begin : begin + WINDOW]
            self._probability = self._model.probability(window)
            start_ns = self._time_of(self._heard)
            self._heard += WINDOW
            event = self._segmenter.add(
                SpeechWindow(
                    start_ns, self._time_of(self._heard), self._probability, rms_dbfs(window)
                )
            )
            if event:
                events.append(event)
        self._pending = pending[whole:]
        return events

    def _time_of(self, sample: int) -> int:
        """Capture time of a resampled sample, counted from the stream's beginning."""
        delay_ns = round(self._resampler.delay_s * NS_PER_S)
        return self._anchor_ns + sample * NS_PER_S // MIC_RATE_HZ - delay_ns

    def _end(self) -> list[VoiceActivity]:
        stopped = self._segmenter.close()
        self._begin_anew()
        return [stopped] if stopped else []

    def _begin_anew(self) -> None:
        self._model.reset()
        self._pending = EMPTY_SAMPLES
        self._expected_ns = None
        self._frames = 0
        self._heard = 0

    def _make_model(self) -> SpeechModel:
        if self.config.detector == "energy":
            return EnergyModel()
        try:
            return SileroModel()
        except DeviceError as error:
            if self.config.detector == "silero":
                raise
            self.fallback_reason = str(error)
            return EnergyModel()


def _mono(chunk: AudioChunk) -> np.ndarray:
    if chunk.data.dtype != np.int16 or chunk.data.ndim not in (1, 2):
        raise InputError(
            f"sound for the voice detector is {chunk.data.dtype} with {chunk.data.ndim} "
            "dimensions: must be int16, [frames] or [frames, channels]"
        )
    if not 4_000 <= chunk.sample_rate <= 192_000:
        raise InputError(
            f"sound for the voice detector has {chunk.sample_rate} Hz: must be 4000 to 192000"
        )
    if chunk.data.ndim == 1:
        return chunk.data
    return np.rint(chunk.data.mean(axis=1)).astype(np.int16)

"""From the probability of speech in each window to stretches of speech: hysteresis and lengths."""

from __future__ import annotations

from dataclasses import dataclass

from minicpmo_ros.messages import NS_PER_MS, VoiceActivity


@dataclass(frozen=True)
class SpeechWindow:
    """A scored piece of sound [start_ns, end_ns): probability of speech, and its level in dBFS."""

    start_ns: int
    end_ns: int
    probability: float
    loudness: float


class SpeechSegmenter:
    """Speech starts where enough of it comes together, and stops where enough silence follows.

    A start is stamped with the beginning of the first window of speech, a stop with the end of the
    last one. Windows between the two thresholds continue whatever was there.
    """

    def __init__(
        self,
        start_threshold: float,
        stop_threshold: float,
        min_speech_ms: float,
        min_silence_ms: float,
    ) -> None:
        self._start_threshold = start_threshold
        self._stop_threshold = stop_threshold
        self._min_speech_ns = round(min_speech_ms * NS_PER_MS)
        self._min_silence_ns = round(min_silence_ms * NS_PER_MS)
        self._segment = 0
        self.speaking_since_ns: int | None = None
        self.voiced_until_ns = 0
        self._pausing = False
        self._last: SpeechWindow | None = None
        # The start that is not sure yet: its time, and how much speech has come together since.
        self._onset_ns: int | None = None
        self._speech_ns = 0

    def reset(self) -> None:
        """Forget everything but the number of the last stretch."""
        self.speaking_since_ns = None
        self.voiced_until_ns = 0
        self._pausing = False
        self._last = None
        self._forget_onset()

    def add(self, window: SpeechWindow) -> VoiceActivity | None:
        """The next window; what starts or stops with it."""
        self._last = window
        if self.speaking_since_ns is None:
            return self._while_silent(window)
        if window.probability >= self._stop_threshold:
            # Only what would start speech ends a pause that has begun, and a murmur within speech
            # is no pause.
            if window.probability >= self._start_threshold or not self._pausing:
                self.voiced_until_ns = window.end_ns
                self._pausing = False
        else:
            self._pausing = True
        if self._pausing and window.end_ns - self.voiced_until_ns >= self._min_silence_ns:
            return self._stop(window)
        return None

    def close(self) -> VoiceActivity | None:
        """The sound ends here: stops speech that goes on."""
        self._forget_onset()
        if self.speaking_since_ns is None or self._last is None:
            return None
        return self._stop(self._last)

    def _while_silent(self, window: SpeechWindow) -> VoiceActivity | None:
        if window.probability < self._stop_threshold:
            self._forget_onset()
            return None
        if window.probability >= self._start_threshold:
            if self._onset_ns is None:
                self._onset_ns = window.start_ns
            self._speech_ns += window.end_ns - window.start_ns
        if self._onset_ns is None or self._speech_ns < self._min_speech_ns:
            return None
        self._segment += 1
        self.speaking_since_ns = self._onset_ns
        self.voiced_until_ns = window.end_ns
        self._pausing = False
        self._forget_onset()
        return self._event(self.speaking_since_ns, True, window)

    def _stop(self, window: SpeechWindow) -> VoiceActivity:
        self.speaking_since_ns = None
        return self._event(self.voiced_until_ns, False, window)

    def _event(self, stamp_ns: int, speaking: bool, window: SpeechWindow) -> VoiceActivity:
        return VoiceActivity(stamp_ns, speaking, self._segment, window.probability, window.loudness)

    def _forget_onset(self) -> None:
        self._onset_ns = None
        self._speech_ns = 0

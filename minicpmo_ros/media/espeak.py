"""A voice that is always there: text to speech with espeak-ng, and the place of every word in it.

The reflex brain and the demo scene speak through it. The same text, voice and settings give the
same samples, whatever was spoken before.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.media import espeak_library as lib
from minicpmo_ros.media.espeak_library import EspeakEvent, EspeakLibrary, EspeakVoice
from minicpmo_ros.media.resample import resample
from minicpmo_ros.messages import EMPTY_SAMPLES, SPEECH_RATE_HZ, WordMark

# Below -60 dBFS a sample counts as silence.
_QUIET = 32
_LEAD_S = 0.02
_TAIL_S = 0.10

# Tags in common use under which espeak-ng does not list its voice.
_ALIASES = {"zh": "cmn", "zh-cn": "cmn", "zh-tw": "cmn", "zh-hk": "yue", "no": "nb", "iw": "he"}


@dataclass(frozen=True, eq=False)
class Utterance:
    """Speech: int16 [samples] mono at rate_hz, the text, and its words in order of time."""

    data: np.ndarray
    words: tuple[WordMark, ...] = ()
    text: str = ""
    rate_hz: int = SPEECH_RATE_HZ

    @property
    def duration_s(self) -> float:
        return len(self.data) / self.rate_hz


class Synthesiser:
    """Speaks text with one voice; may be called from any thread, one utterance at a time.

    voice: a language tag ("en-us", "zh", "de-AT"), an espeak-ng voice name or file, with "+f3" or
    another variant if wanted. rate_wpm: words a minute, 80 to 450. pitch and pitch_range: 0 to 99,
    50 is the voice's own. volume: 0 to 200 percent; above 100 loud voices clip.

    Raises `DeviceError` where libespeak-ng is missing, `ConfigError` for a voice that it does not
    have or a number out of range.
    """

    def __init__(
        self,
        voice: str = "en-us",
        rate_wpm: int = 170,
        pitch: int = 50,
        *,
        pitch_range: int = 50,
        volume: int = 100,
        library: str = "",
    ) -> None:
        self._parameters = {
            lib.PARAMETER_RATE: _within("rate_wpm", rate_wpm, 80, 450),
            lib.PARAMETER_PITCH: _within("pitch", pitch, 0, 99),
            lib.PARAMETER_RANGE: _within("pitch_range", pitch_range, 0, 99),
            lib.PARAMETER_VOLUME: _within("volume", volume, 0, 200),
        }
        self._library = library
        with lib.fresh_library(library) as espeak:
            self.voice = _find_voice(espeak, voice)

    def speak(self, text: str) -> Utterance:
        """Speak plain text: markup is read out, control characters are spaces.

        Silence at both ends is cut to 20 and 100 ms. Text in which nothing can be spoken gives an
        utterance without samples. Word marks hold the text as written, punctuation included.
        """
        plain = plain_text(text)
        if not plain.strip():
            return Utterance(EMPTY_SAMPLES, (), text)
        with lib.fresh_library(self._library) as espeak:
            espeak.set_voice(self.voice)
            for parameter, value in self._parameters.items():
                espeak.set_parameter(parameter, value)
            spoken = espeak.synthesise(plain)
            rate_hz = espeak.rate_hz
        samples = np.frombuffer(bytes(spoken.pcm), dtype=np.int16)
        sounding = is_sounding(samples)
        if not sounding.any():
            return Utterance(EMPTY_SAMPLES, (), text)
        first, last = np.flatnonzero(sounding)[[0, -1]]
        begin = max(0, int(first) - round(_LEAD_S * rate_hz))
        end = min(len(samples), int(last) + 1 + round(_TAIL_S * rate_hz))
        data = resample(samples[begin:end], rate_hz, SPEECH_RATE_HZ)
        words = []
        for written, start, stop in place_words(plain, spoken.events, sounding):
            marks = (
                min(max(0, round((sample - begin) * SPEECH_RATE_HZ / rate_hz)), len(data))
                for sample in (start, stop)
            )
            words.append(WordMark(written, *marks))
        return Utterance(data, tuple(words), text)


def list_voices(library: str = "") -> list[EspeakVoice]:
    """The installed voices by tag. Raises `DeviceError` where libespeak-ng is missing."""
    with lib.fresh_library(library) as espeak:
        return sorted(espeak.voices(), key=lambda voice: (voice.tags, voice.name))


def _within(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}: must be {low} to {high}")
    return int(value)


def _find_voice(espeak: EspeakLibrary, voice: str) -> str:
    """The name under which espeak-ng knows a voice; less specific tags are tried in turn."""
    base, plus, variant = voice.strip().partition("+")
    if plus:
        variants = {known.file.rpartition("/")[2] for known in espeak.voices("variant")}
        if variant not in variants:
            raise ConfigError(
                f"voice '{voice}': espeak-ng has no variant '{variant}'; it has "
                + ", ".join(sorted(variants, key=str.lower))
            )
    tag = base.lower().replace("_", "-")
    candidates = [base, tag]
    while tag:
        candidates += [_ALIASES.get(tag, tag)]
        tag = tag.rpartition("-")[0]
    for candidate in candidates:
        if candidate and espeak.set_voice(candidate + plus + variant):
            return candidate + plus + variant
    known = sorted({tag for installed in espeak.voices() for tag in installed.tags})
    raise ConfigError(f"voice '{voice}': espeak-ng has no such voice; it has {', '.join(known)}")


def is_sounding(samples: np.ndarray) -> np.ndarray:
    """bool [samples]: which of int16 [samples] are above -60 dBFS."""
    return np.abs(samples.astype(np.int32)) > _QUIET


def plain_text(text: str) -> str:
    """The text with as many characters, those that espeak-ng could take for commands blanked."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Co") else c for c in text)


def place_words(
    text: str, events: list[EspeakEvent], sounding: np.ndarray
) -> list[tuple[str, int, int]]:
    """Words as written with their samples [start, stop), from espeak-ng's events.

    text: plain, as it was spoken. sounding: see `is_sounding`, of the whole utterance.

    espeak-ng reports several events within "12.50", none for a lone "=". A word is what stands
    between spaces, or, in scripts without spaces, what one event covers. What has no event of its
    own belongs to the word before it (the first: to the word after it), so that the words put
    together are the text.
    """
    samples = len(sounding)
    word_starts = _word_starts(text, {e.character for e in events if e.kind == lib.EVENT_WORD})
    spoken: dict[int, int] = {}
    stops: dict[int, int] = {}
    current: int | None = None
    for event in events:
        if event.kind == lib.EVENT_WORD and event.character < len(text):
            index = int(np.searchsorted(word_starts, event.character, side="right")) - 1
            if text[event.character].isspace() or (current is not None and index <= current):
                continue
            if current is not None:
                stops.setdefault(current, event.sample)
            spoken[index] = event.sample
            current = index
        elif event.kind == lib.EVENT_END and current is not None:
            stops.setdefault(current, event.sample)
    if current is not None:
        stops.setdefault(current, samples)
    indices = sorted(spoken)
    words = []
    for place, index in enumerate(indices):
        begin = 0 if place == 0 else word_starts[index]
        end = word_starts[indices[place + 1]] if place + 1 < len(indices) else len(text)
        start = min(spoken[index], samples)
        stop = max(start, min(stops[index], samples))
        # espeak-ng counts the pause after a clause to its last word: heard is what sounds.
        loud = np.flatnonzero(sounding[start:stop])
        stop = start + int(loud[-1]) + 1 if len(loud) else stop
        words.append((text[begin:end].strip(), start, stop))
    return words


def _word_starts(text: str, event_characters: set[int]) -> list[int]:
    starts = {match.start() for match in re.finditer(r"\S+", text)}
    # "Lo" are letters without case: CJK, kana, Thai, which write no spaces, but also Arabic and
    # Hebrew, inside whose words espeak-ng places no event.
    starts |= {
        c for c in event_characters if c < len(text) and unicodedata.category(text[c]) == "Lo"
    }
    return sorted(starts)

"""Who speaks in nano's episodes: voices of three synthesisers, some kept for measuring, and speech.

espeak-ng and flite say when each word and each phoneme is heard. festival is of another family, and
gives sound alone.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.media import espeak_library as lib
from minicpmo_ros.media.espeak import is_sounding, place_words, plain_text
from minicpmo_ros.messages import MIC_RATE_HZ
from minicpmo_ros.nano.espeak_data import tagged_data
from minicpmo_ros.nano.espeak_phonemes import place_phonemes
from minicpmo_ros.nano.other_synthesisers import OtherSynthesisers, default_cache

ENGINES = ("espeak", "flite", "festival")
SPLITS = ("train", "espeak", "flite", "other")

HELD_OUT_ACCENT = "en-gb-x-gbclan"
_ACCENTS = (
    "en-029",
    "en-gb",
    "en-gb-scotland",
    HELD_OUT_ACCENT,
    "en-gb-x-gbcwmd",
    "en-gb-x-rp",
    "en-us",
    "en-us-nyc",
)
# espeak-ng 1.51's, but for those that whisper, croak, echo or want to be a robot, and two that are
# others once more (klatt6 is klatt, edward nearly klatt5).
_LISTED = (
    "adam Alex Alicia Andrea Andy anika Annie antonio AnxiousAndy aunty belinda benjamin boris"
    " david Denis Diogo ed edward2 f1 f2 f3 f4 f5 Gene Gene2 grandma grandpa gustave"
    " Henrique Hugo iven iven2 iven3 iven4 Jacky john kaukovalta klatt klatt2 klatt3 klatt4 klatt5"
    " Lee linda m1 m2 m3 m4 m5 m6 m7 m8 marcelo Marco Mario max Michael michel miguel Mike"
    " Nguyen norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 steph3 Storm"
    " travis Tweaky victor zac"
)
_VARIANTS = tuple(_LISTED.split())


def _held_out(variant: str) -> bool:
    # By a sum of the name: nobody's taste, and the same for ever.
    return zlib.crc32(variant.encode()) % 8 == 0


TRAINING_VOICES: tuple[str, ...] = tuple(
    f"{accent}+{variant}"
    for accent in _ACCENTS
    for variant in _VARIANTS
    if accent != HELD_OUT_ACCENT and not _held_out(variant)
)
# Variants never trained on, in all accents; one accent is never trained on with any variant.
HELD_OUT_VOICES: tuple[str, ...] = tuple(
    f"{accent}+{variant}" for accent in _ACCENTS for variant in _VARIANTS if _held_out(variant)
)
TRAINING_FLITE = ("rms", "kal16")
HELD_OUT_FLITE = ("slt", "awb")
# Never trained on. slt is the speaker of flite's slt by another method; ked is known to nobody.
OTHER_VOICES = ("cmu_us_slt_arctic_hts", "ked_diphone")
# Few, so that what was spoken once is found again.
_FLITE_RATES = (150, 170, 190)


@dataclass(frozen=True)
class Voice:
    """A voice and how it speaks.

    name: espeak-ng's voice with a variant ("en-us+m3"), or the name that flite or festival know.
    rate: words a minute. pitch, range: 0 to 99, 50 is the voice's own; of espeak alone. warp: all
    of it so many times as fast and as high, formants too (see `acoustics.warp`).
    Raises `ConfigError` for an engine or a number out of range.
    """

    engine: str
    name: str
    rate: int = 170
    pitch: int = 50
    range: int = 50
    warp: float = 1.0

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"engine is '{self.engine}': must be one of {', '.join(ENGINES)}")
        for name, low, high in (
            ("rate", 80, 450),
            ("pitch", 0, 99),
            ("range", 0, 99),
            ("warp", 0.5, 2.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"voice {name} is {value}: must be {low} to {high}")


def random_voice(rng: np.random.Generator, split: str = "train", flite: float = 0.0) -> Voice:
    """A voice of a split.

    train: espeak's training voices, warped half the time, and flite's in the share `flite` (0 to
    1). espeak, flite: held out. other: festival's. Raises `ConfigError` for another split.
    """
    if split == "train" and rng.random() < flite:
        name = TRAINING_FLITE[rng.integers(len(TRAINING_FLITE))]
        return _warped(rng, Voice("flite", name, _FLITE_RATES[rng.integers(len(_FLITE_RATES))]))
    if split in ("train", "espeak"):
        names = TRAINING_VOICES if split == "train" else HELD_OUT_VOICES
        voice = Voice(
            "espeak",
            names[rng.integers(len(names))],
            rate=int(rng.integers(120, 231)),
            pitch=int(rng.integers(25, 76)),
            range=int(rng.integers(20, 91)),
        )
        return _warped(rng, voice) if split == "train" else voice
    if split == "flite":
        name = HELD_OUT_FLITE[rng.integers(len(HELD_OUT_FLITE))]
        return Voice("flite", name, _FLITE_RATES[rng.integers(len(_FLITE_RATES))])
    if split == "other":
        return Voice("festival", OTHER_VOICES[rng.integers(len(OTHER_VOICES))])
    raise ConfigError(f"split of voices is '{split}': must be one of {', '.join(SPLITS)}")


def _warped(rng: np.random.Generator, voice: Voice) -> Voice:
    return replace(voice, warp=float(rng.uniform(0.88, 1.14))) if rng.random() < 0.5 else voice


@dataclass(frozen=True, eq=False)
class Said:
    """Speech: float32 [n] mono at 16 kHz, -1 to 1, with at most 20 ms of silence at either end.

    words: text, start and stop in seconds. phonemes: index into `PHONEMES`, start and stop in
    seconds, pauses left out. Both in order of time, and empty where the synthesiser gives no times.
    """

    samples: np.ndarray
    words: tuple[tuple[str, float, float], ...] = ()
    phonemes: tuple[tuple[int, float, float], ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.samples) / MIC_RATE_HZ


class Speaker:
    """Speaks with any voice; the same text and voice give the same samples.

    cache: folder for what flite and festival said ($XDG_CACHE_HOME/minicpmo_ros/nano-voices).
    Raises `DeviceError` where libespeak-ng is missing.
    """

    def __init__(self, cache: Path | None = None) -> None:
        folder = cache or default_cache()
        with lib.fresh_library() as espeak:
            self._data = tagged_data(espeak, folder)
            variants = Path(espeak.data_path) / "voices" / "!v"
            self._variants = {path.name for path in variants.iterdir()}
        self._others = OtherSynthesisers(folder)

    def say(self, text: str, voice: Voice) -> Said:
        """Speak plain text; nothing to be spoken gives no samples.

        Raises `ConfigError` for a voice that the synthesiser does not have, `DeviceError` where
        flite or festival is not installed.
        """
        plain = plain_text(text)
        if not plain.strip():
            return Said(np.zeros(0, np.float32))
        if voice.engine == "espeak":
            return self._espeak(plain, voice)
        spoken = self._others.say(voice.engine, voice.name, voice.rate, plain)
        begin, end = _ends(is_sounding(spoken.pcm), MIC_RATE_HZ)
        samples = _at_mic_rate(spoken.pcm[begin:end], MIC_RATE_HZ, voice.warp)
        length, lead = len(samples) / MIC_RATE_HZ, begin / MIC_RATE_HZ

        def heard(second: float) -> float:
            return min(max(0.0, (second - lead) / voice.warp), length)

        return Said(
            samples,
            tuple((word, heard(start), heard(stop)) for word, start, stop in spoken.words),
            tuple((index, heard(start), heard(stop)) for index, start, stop in spoken.phonemes),
        )

    def _espeak(self, plain: str, voice: Voice) -> Said:
        accent, _, variant = voice.name.partition("+")
        if variant and variant not in self._variants:
            raise ConfigError(f"voice '{voice.name}': espeak-ng has no variant '{variant}'")
        # The file of en-gb is called en, and only that name goes with variants.
        name = voice.name.replace("en-gb", "en", 1) if accent == "en-gb" else voice.name
        with lib.fresh_library(phonemes=True, data=self._data) as espeak:
            if not espeak.set_voice(name):
                raise ConfigError(f"voice '{voice.name}': espeak-ng has no such voice")
            espeak.set_parameter(lib.PARAMETER_RATE, voice.rate)
            espeak.set_parameter(lib.PARAMETER_PITCH, voice.pitch)
            espeak.set_parameter(lib.PARAMETER_RANGE, voice.range)
            spoken = espeak.synthesise(plain)
            rate_hz = espeak.rate_hz
        pcm = np.frombuffer(spoken.pcm, np.int16)
        sounding = is_sounding(pcm)
        begin, end = _ends(sounding, rate_hz)
        samples = _at_mic_rate(pcm[begin:end], rate_hz, voice.warp)
        length = len(samples) / MIC_RATE_HZ

        def second(sample: int) -> float:
            return min(max(0.0, (sample - begin) / (rate_hz * voice.warp)), length)

        words = place_words(plain, spoken.events, sounding)
        phonemes = place_phonemes(spoken.events, len(pcm))
        return Said(
            samples,
            tuple((word, second(start), second(stop)) for word, start, stop in words),
            tuple((index, second(start), second(stop)) for index, start, stop in phonemes),
        )


def _ends(sounding: np.ndarray, rate_hz: int) -> tuple[int, int]:
    """Where speech begins and ends in bool [samples], with 20 ms on either side; 0, 0: nowhere."""
    if not sounding.any():
        return 0, 0
    margin = rate_hz // 50
    first = int(sounding.argmax())
    last = len(sounding) - int(sounding[::-1].argmax())
    return max(0, first - margin), min(len(sounding), last + margin)


def _at_mic_rate(pcm: np.ndarray, rate_hz: int, warp: float) -> np.ndarray:
    samples = pcm.astype(np.float32) / np.float32(32768)
    if not len(samples) or rate_hz * warp == MIC_RATE_HZ:
        return samples
    resampled = soxr.resample(samples, rate_hz * warp, MIC_RATE_HZ, quality="HQ")
    return np.clip(resampled, -1.0, 1.0)

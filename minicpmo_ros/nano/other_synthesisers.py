"""flite and festival: speech of families other than espeak-ng's, each text by a process of its own.

A process takes tens to hundreds of milliseconds, so what was spoken once is kept on disk. flite
also tells when its words and phonemes are heard.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from minicpmo_ros.errors import ConfigError, DeviceError
from minicpmo_ros.media.resample import resample
from minicpmo_ros.messages import MIC_RATE_HZ
from minicpmo_ros.nano import flite_times

# Words a minute at which these voices speak by themselves, about.
_OWN_RATE = 170
_TIMEOUT_S = 60
_PACKAGES = {"flite": "flite", "festival": "festival"}
_FESTIVAL_VOICES = {
    "cmu_us_slt_arctic_hts": "festvox-us-slt-hts",
    "ked_diphone": "festvox-kdlpc16k",
    "kal_diphone": "festvox-kallpc16k",
}
_Times = tuple[tuple[flite_times.WordSpan, ...], tuple[flite_times.PhonemeSpan, ...]]
_FLITE_VOICES = ("awb", "kal", "kal16", "rms", "slt")


def default_cache() -> Path:
    """minicpmo_ros/nano-voices in the user's folder for caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "minicpmo_ros" / "nano-voices"


@dataclass(frozen=True, eq=False)
class Spoken:
    """pcm: int16 [n] mono at 16 kHz, as the engine gives it. words, phonemes: as `voices.Said` has
    them, but from where pcm begins."""

    pcm: np.ndarray
    words: tuple[flite_times.WordSpan, ...] = ()
    phonemes: tuple[flite_times.PhonemeSpan, ...] = ()


class OtherSynthesisers:
    """Speaks with flite's and festival's voices; cache: folder for what was spoken."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def say(self, engine: str, voice: str, rate: int, text: str) -> Spoken:
        """Speak plain text. rate: words a minute.

        Raises `ConfigError` for a voice that is not known, `DeviceError` where the engine or the
        voice is not installed, or fails.
        """
        known = _FLITE_VOICES if engine == "flite" else tuple(_FESTIVAL_VOICES)
        if voice not in known:
            raise ConfigError(f"voice '{voice}': {engine}'s are {', '.join(known)}")
        program = shutil.which(engine)
        if program is None:
            package = _PACKAGES[engine]
            raise DeviceError(f"{engine} is not installed: apt-get install {package}")
        entry = self._entry(program, voice, rate, text)
        try:
            return _kept(entry)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            # Never spoken, or damaged: either way it is spoken now.
            pass
        with tempfile.TemporaryDirectory() as folder:
            wave = Path(folder) / "said.wav"
            speak = _flite if engine == "flite" else _festival
            words, phonemes = speak(program, voice, rate, text, wave)
            pcm, rate_hz = soundfile.read(wave, dtype="int16", always_2d=True)
        said = Spoken(resample(pcm[:, 0], rate_hz, MIC_RATE_HZ), words, phonemes)
        _keep(said, entry)
        return said

    def _entry(self, program: str, voice: str, rate: int, text: str) -> Path:
        # Another version of the program speaks differently.
        version = Path(program).stat()
        key = (program, str(version.st_size), str(version.st_mtime_ns), voice, str(rate), text)
        name = hashlib.blake2b("\0".join(key).encode(), digest_size=16).hexdigest()
        return self._cache / name[:2] / f"{name}.npz"


def _kept(entry: Path) -> Spoken:
    with np.load(entry) as file:
        words = zip(file["words"].tolist(), *file["when"].T.tolist(), strict=True)
        phonemes = zip(file["phonemes"].tolist(), *file["heard"].T.tolist(), strict=True)
        return Spoken(file["pcm"], tuple(words), tuple(phonemes))


def _keep(said: Spoken, entry: Path) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        # Moved to its place when whole: others read and write there at the same time.
        with tempfile.NamedTemporaryFile(dir=entry.parent, delete=False) as file:
            np.savez(
                file,
                pcm=said.pcm,
                words=np.array([word for word, _, _ in said.words], np.str_),
                when=np.array([span for _, *span in said.words]).reshape(-1, 2),
                phonemes=np.array([index for index, _, _ in said.phonemes], np.int64),
                heard=np.array([span for _, *span in said.phonemes]).reshape(-1, 2),
            )
        Path(file.name).replace(entry)
    except OSError as error:
        raise DeviceError(f"speech cannot be kept in {entry.parent}: {error}") from error


def _flite(program: str, voice: str, rate: int, text: str, wave: Path) -> _Times:
    stretch = f"duration_stretch={_OWN_RATE / rate:.4f}"
    arguments = ["-voice", voice, "--setf", stretch, "-psdur", "-t", text, "-o", str(wave)]
    told = _run([program, *arguments], "", wave, f"flite's voice {voice}")
    segments = flite_times.segments_of(told)
    words = flite_times.words(text, segments, functools.partial(_alone, program))
    return tuple(words), tuple(flite_times.phonemes(segments))


@functools.lru_cache(8192)
def _alone(program: str, word: str) -> tuple[str, ...]:
    """A word's segments when nothing else is said; all voices of flite have the same."""
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "said.wav"
        told = _run([program, "-psdur", "-t", word, "-o", str(wave)], "", wave, "flite")
    return tuple(name for name, _ in flite_times.segments_of(told) if name != "pau")


def _festival(program: str, voice: str, rate: int, text: str, wave: Path) -> _Times:
    quoted = text.replace("\\", " ").replace('"', " ")
    # ASCII is what its lexicon knows.
    quoted = quoted.encode("ascii", "ignore").decode()
    commands = f"""
(voice_{voice})
(Parameter.set 'Duration_Stretch {_OWN_RATE / rate:.4f})
(set! said (utt.synth (Utterance Text "{quoted}")))
(utt.save.wave said "{wave}" 'riff)
"""
    package = _FESTIVAL_VOICES[voice]
    what = f"festival's voice {voice} (apt-get install {package})"
    _run([program, "--pipe"], commands, wave, what)
    return (), ()


def _run(command: list[str], given: str, wave: Path, what: str) -> str:
    """What it prints."""
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{what} said nothing within {_TIMEOUT_S} s") from None
    if done.returncode or not wave.is_file() or not wave.stat().st_size:
        reason = (done.stderr or done.stdout).strip()[-300:]
        raise DeviceError(f"{what} failed: {reason or f'exit status {done.returncode}'}")
    return done.stdout

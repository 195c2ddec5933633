"""flite and festival: speech of families other than espeak-ng's, each text by a process of its own.

A process takes tens to hundreds of milliseconds, so what was spoken once is kept on disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from minicpmo_ros.errors import ConfigError, DeviceError
from minicpmo_ros.media.resample import resample
from minicpmo_ros.messages import MIC_RATE_HZ

# Words a minute at which these voices speak by themselves, about.
_OWN_RATE = 170
_TIMEOUT_S = 60
_PACKAGES = {"flite": "flite", "festival": "festival"}
_FESTIVAL_VOICES = {
    "cmu_us_slt_arctic_hts": "festvox-us-slt-hts",
    "ked_diphone": "festvox-kdlpc16k",
    "kal_diphone": "festvox-kallpc16k",
}
_FLITE_VOICES = ("awb", "kal", "kal16", "rms", "slt")


def default_cache() -> Path:
    """minicpmo_ros/nano-voices in the user's folder for caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "minicpmo_ros" / "nano-voices"


class OtherSynthesisers:
    """Speaks with flite's and festival's voices; cache: folder for what was spoken."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def say(self, engine: str, voice: str, rate: int, text: str) -> np.ndarray:
        """int16 [n] mono at 16 kHz, as the engine gives it. rate: words a minute.

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
            return np.load(entry)
        except (OSError, ValueError, EOFError):
            # Never spoken, or damaged: either way it is spoken now.
            pass
        with tempfile.TemporaryDirectory() as folder:
            wave = Path(folder) / "said.wav"
            speak = _flite if engine == "flite" else _festival
            speak(program, voice, rate, text, wave)
            pcm, rate_hz = soundfile.read(wave, dtype="int16", always_2d=True)
        said = resample(pcm[:, 0], rate_hz, MIC_RATE_HZ)
        _keep(said, entry)
        return said

    def _entry(self, program: str, voice: str, rate: int, text: str) -> Path:
        # Another version of the program speaks differently.
        version = Path(program).stat()
        key = (program, str(version.st_size), str(version.st_mtime_ns), voice, str(rate), text)
        name = hashlib.blake2b("\0".join(key).encode(), digest_size=16).hexdigest()
        return self._cache / name[:2] / f"{name}.npy"


def _keep(said: np.ndarray, entry: Path) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        # Moved to its place when whole: others read and write there at the same time.
        with tempfile.NamedTemporaryFile(dir=entry.parent, delete=False) as file:
            np.save(file, said)
        Path(file.name).replace(entry)
    except OSError as error:
        raise DeviceError(f"speech cannot be kept in {entry.parent}: {error}") from error


def _flite(program: str, voice: str, rate: int, text: str, wave: Path) -> None:
    stretch = f"duration_stretch={_OWN_RATE / rate:.4f}"
    arguments = ["-voice", voice, "--setf", stretch, "-t", text, "-o", str(wave)]
    _run([program, *arguments], "", wave, f"flite's voice {voice}")


def _festival(program: str, voice: str, rate: int, text: str, wave: Path) -> None:
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


def _run(command: list[str], given: str, wave: Path, what: str) -> None:
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

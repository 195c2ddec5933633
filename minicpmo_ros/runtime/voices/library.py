"""Voices by their names: the sound files of one folder."""

from __future__ import annotations

from pathlib import Path

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.runtime.voices.assets import VoiceAssets
from minicpmo_ros.runtime.voices.cache import VoiceCache
from minicpmo_ros.runtime.voices.reference import ReferenceVoice

ENDINGS = (".wav", ".flac", ".ogg")


class VoiceLibrary:
    """A folder of wav, flac and ogg files; each is a voice, named as its file without the ending.

    The folder is looked at with each call, so voices can be added while a robot runs. What was
    heard of a file is kept, so `get` is quick but for the first time.

    Args:
        assets: the networks to hear new voices with.
        cache: the user's if None.
    """

    def __init__(
        self, folder: Path | str, assets: VoiceAssets, cache: VoiceCache | None = None
    ) -> None:
        self.folder = Path(folder).expanduser()
        self._assets = assets
        self._cache = cache or VoiceCache()

    def names(self) -> list[str]:
        """Of all voices, sorted; whether they can be used is not looked at.

        Raises:
            ConfigError: there is no such folder, or it cannot be read.
        """
        return sorted(self._files())

    def file(self, name: str) -> Path:
        """The sound file of a voice.

        Raises:
            ConfigError: there is no such voice, or two files have its name; or see `names`.
        """
        files = self._files()
        if name not in files:
            there = ", ".join(sorted(files)) or f"none: put {', '.join(ENDINGS)} files there"
            raise ConfigError(f"there is no voice '{name}' in {self.folder}; there is {there}")
        if len(files[name]) > 1:
            named = " and ".join(file.name for file in files[name])
            raise ConfigError(
                f"the voice '{name}' in {self.folder} has more than one file, {named}; rename or"
                " remove all but one"
            )
        return files[name][0]

    def get(self, name: str) -> ReferenceVoice:
        """A voice by its name.

        Raises:
            ConfigError: see `file`.
            InputError, DeviceError, CheckpointError, EngineError: see `VoiceCache.voice`.
        """
        return self._cache.voice(self.file(name), self._assets, name)

    def _files(self) -> dict[str, list[Path]]:
        try:
            found = sorted(self.folder.iterdir())
        except OSError as error:
            raise ConfigError(
                f"the folder of voices {self.folder} cannot be read ({error.strerror}); make it,"
                f" and put {', '.join(ENDINGS)} files there, one a voice"
            ) from None
        files: dict[str, list[Path]] = {}
        for file in found:
            if file.suffix.lower() in ENDINGS and file.is_file() and file.name[0] != ".":
                files.setdefault(file.stem, []).append(file)
        return files

"""The voices that the local brain can speak in, and the vocoder that does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from minicpmo_ros.brains.api import VoiceNotes
from minicpmo_ros.brains.local.config import LocalConfig
from minicpmo_ros.brains.local.telling import VOCODER_FROM, Telling
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.runtime.vocoder import ASSETS, VocoderNetworks, VoiceVocoder, load_vocoder

if TYPE_CHECKING:
    from minicpmo_ros.runtime.voices.library import VoiceLibrary

PUBLISHED = Path("assets") / "HT_ref_audio.wav"
"""The voice that comes with the published checkpoint, in its directory."""
Load = Callable[[Path, LocalConfig, Telling], VocoderNetworks]


def load_networks(directory: Path, config: LocalConfig, telling: Telling) -> VocoderNetworks:
    """The vocoder of a checkpoint, as the recipe has it; without one in torch.

    telling: hears of its building, which is the last part of the way.

    Raises:
        CheckpointError, ConfigError, EngineError, BrainError: see `load_vocoder`.
    """
    return load_vocoder(
        directory,
        device=config.device,
        recipe=config.recipe,
        threads=config.threads,
        progress=telling.between(VOCODER_FROM, 1.0),
        say=telling.say,
    )


class LocalVoices:
    """Sound files by name, and one vocoder in the voice that was asked for last.

    Args:
        load: gives the vocoder's networks; for tests.
    """

    def __init__(self, config: LocalConfig, load: Load = load_networks) -> None:
        self._config = config
        self._load = load
        self._networks: VocoderNetworks | None = None
        self._made: tuple[tuple[Path, int], VoiceVocoder] | None = None

    def names(self) -> tuple[str, ...]:
        """Of the folder `voices`; none without one. Raises ConfigError if it cannot be read."""
        if not self._config.voices:
            return ()
        return tuple(self._library().names())

    def file(self, name: str) -> Path | None:
        """The sound file of a voice; of no name, the reference voice, if there is one.

        Raises:
            ConfigError: there is no such voice.
        """
        if name:
            if not self._config.voices:
                raise ConfigError(
                    f"the voice '{name}' cannot be found: give the parameter 'voices' a folder"
                    " with sound files, one a voice"
                )
            return self._library().file(name)
        voice = self._config.reference_voice
        return Path(voice).expanduser() if voice else None

    def vocoder(
        self, directory: Path, file: Path | None, seed: int, telling: Telling
    ) -> VoiceVocoder:
        """Of a checkpoint, in the voice of this file, or else the one that comes with it.

        telling: see `load_networks`.

        Raises:
            MinicpmoError: it cannot speak, and why.
        """
        file = file or directory / PUBLISHED
        if self._made is not None and self._made[0] == (file, seed):
            return self._made[1]
        if self._networks is None:
            self._networks = self._load(directory, self._config, telling)
        if not file.is_file():
            raise ConfigError(
                "there is no voice to speak in: set reference_voice to a sound file, or voices and"
                " speaker to a folder and a name in it"
            )
        from minicpmo_ros.runtime.voices.assets import VoiceAssets  # what it needs, few have
        from minicpmo_ros.runtime.voices.cache import VoiceCache

        assets = VoiceAssets(directory / ASSETS, self._config.threads)
        voice = VoiceCache().voice(file, assets)
        made = VoiceVocoder(
            self._networks,
            voice,
            steps=self._config.speech_steps,
            seed=seed,
            reference_compat=self._config.duplex.reference_compat,
        )
        self._made = ((file, seed), made)
        return made

    @property
    def about(self) -> str:
        """What speaks, in words; empty while nothing does."""
        if self._made is None or self._networks is None:
            return ""
        return f"voice {self._made[1].voice.name}, {self._networks.about}"

    @property
    def notes(self) -> VoiceNotes:
        """Of the voice that speaks."""
        if self._made is None:
            return VoiceNotes()
        voice = self._made[1].voice
        return VoiceNotes(voice.name, voice.notes)

    def close(self) -> None:
        self._networks = self._made = None

    def _library(self) -> VoiceLibrary:
        """For its files alone."""
        from minicpmo_ros.runtime.voices.assets import VoiceAssets
        from minicpmo_ros.runtime.voices.library import VoiceLibrary

        return VoiceLibrary(self._config.voices, VoiceAssets(""))

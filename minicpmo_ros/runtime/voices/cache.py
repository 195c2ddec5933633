"""Voices that were heard before, kept on the disk: in the folder `voices` of the engine cache.

An entry is found by the bytes of the sound file and of both networks, not by names: a voice that is
recorded anew is heard anew, and one that is renamed is not.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from minicpmo_ros.errors import EngineError, InputError
from minicpmo_ros.model.fingerprint import sha256
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_entry import EngineKey, verify
from minicpmo_ros.runtime.engines.pieces import ANY_MACHINE
from minicpmo_ros.runtime.voices.assets import VoiceAssets
from minicpmo_ros.runtime.voices.reference import ReferenceVoice, hear
from minicpmo_ros.runtime.voices.sound import read_voice_sound

VERSION = "1"
"""Of how a file is read and heard: what changes a voice counts it up."""
_FILE = "voice.npz"
_log = logging.getLogger(__name__)


class VoiceCache:
    """Voices by the content of their files.

    A cache that cannot be written to costs time with each start, and a line in the log; so does a
    user without a folder for one (`engines.cache.default_folder`).

    Args:
        engines: in whose folder; the user's if None.
    """

    def __init__(self, engines: EngineCache | None = None) -> None:
        engines = engines or EngineCache()
        self._memory = engines.fingerprints
        self._cache: EngineCache | None = None
        try:
            self._cache = EngineCache(engines.folder / "voices")
        except EngineError as error:
            _log.warning("no voice can be kept: %s", error)

    @property
    def folder(self) -> Path | None:
        return None if self._cache is None else self._cache.folder

    def voice(self, file: Path, assets: VoiceAssets, name: str | None = None) -> ReferenceVoice:
        """The voice of a sound file, heard now if it was not before.

        Args:
            name: the file's without its ending if None.

        Raises:
            InputError, DeviceError: see `read_voice_sound`.
            CheckpointError, EngineError: see `VoiceAssets`.
        """
        name = file.stem if name is None else name
        key = self._key(file, assets)
        if (found := self._find(key)) is None:
            found = hear(name, read_voice_sound(file), assets)
            self._keep(key, found)
        return replace(found, name=name)

    def _key(self, file: Path, assets: VoiceAssets) -> EngineKey:
        try:
            sound = sha256(file)
        except OSError as error:
            raise InputError(f"{file} cannot be read as sound: {error.strerror}") from None
        networks = assets.digest(self._memory)
        made_by = ("onnxruntime", VERSION, ANY_MACHINE)
        return EngineKey(networks, "voice", "fp32", {"sound": sound}, *made_by)

    def _find(self, key: EngineKey) -> ReferenceVoice | None:
        if self._cache is None:
            return None
        try:
            entry = self._cache.find(key)
            if entry is None:
                return None
            verify(entry)
            return _read(entry.folder / _FILE)
        except (EngineError, OSError, ValueError, KeyError, BadZipFile) as error:
            folder = self._cache.folder / key.name
            _log.warning("%s is damaged, so the voice is heard again", folder, exc_info=error)
            self._forget(self._cache, key)
            return None

    @staticmethod
    def _forget(cache: EngineCache, key: EngineKey) -> None:
        try:
            cache.clean([key.name])
        except EngineError as error:
            _log.warning("%s", error)

    def _keep(self, key: EngineKey, voice: ReferenceVoice) -> None:
        if self._cache is None:
            return
        try:
            self._cache.ensure(key, lambda folder: _write(folder / _FILE, voice))
        except (EngineError, OSError) as error:
            _log.warning("the voice '%s' cannot be kept: %s", voice.name, error)


def _write(file: Path, voice: ReferenceVoice) -> None:
    notes = np.array(json.dumps(voice.notes))
    np.savez(file, tokens=voice.tokens, speaker=voice.speaker, mel=voice.mel, notes=notes)


def _read(file: Path) -> ReferenceVoice:
    with np.load(file, allow_pickle=False) as found:
        notes = tuple(json.loads(str(found["notes"])))
        return ReferenceVoice("", found["tokens"], found["speaker"], found["mel"], notes)

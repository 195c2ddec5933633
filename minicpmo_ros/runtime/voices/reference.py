"""What the vocoder is given of a voice to speak in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.mel import mirrored_log_mel
from minicpmo_ros.model.voice_features import MEL_BINS, fbank, prompt_mel
from minicpmo_ros.runtime.voices.assets import SPEAKER_SIZE, VoiceAssets
from minicpmo_ros.runtime.voices.sound import VoiceSound

TOKENS_PER_SECOND = 25
FRAMES_PER_TOKEN = 2


@dataclass(frozen=True, eq=False)
class ReferenceVoice:
    """A voice as the vocoder's flow goes on from it.

    name: of the voice. tokens: int64 [n], 25 a second, each 0 to 6560. speaker: float32 [192], as
    the speaker network gave it, of any length. mel: float32 [2 n, 80], log magnitudes 50 a second.
    notes: what is not well with the recording or was done to it, a sentence each.

    Raises:
        InputError: shapes or types are not these.
    """

    name: str
    tokens: NDArray[np.int64]
    speaker: NDArray[np.float32]
    mel: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.tokens)
        wanted = {
            "tokens": ((count,), np.int64),
            "speaker": ((SPEAKER_SIZE,), np.float32),
            "mel": ((FRAMES_PER_TOKEN * count, MEL_BINS), np.float32),
        }
        for field, (shape, kind) in wanted.items():
            array = getattr(self, field)
            if array.shape != shape or array.dtype != kind:
                raise InputError(
                    f"{field} of the voice '{self.name}' is {array.dtype} {list(array.shape)};"
                    f" {np.dtype(kind)} {list(shape)} is needed"
                )

    @property
    def seconds(self) -> float:
        return len(self.tokens) / TOKENS_PER_SECOND


def hear(name: str, sound: VoiceSound, assets: VoiceAssets) -> ReferenceVoice:
    """Make a voice of its sound: some seconds of work on a CPU.

    Raises:
        CheckpointError, EngineError: see `VoiceAssets`.
    """
    tokens = assets.tokens(mirrored_log_mel(sound.at_16k))
    speaker = assets.speaker(fbank(sound.at_16k))
    mel = _of_length(prompt_mel(sound.at_24k), FRAMES_PER_TOKEN * len(tokens))
    return ReferenceVoice(name, tokens, speaker, mel, sound.notes)


def _of_length(mel: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """The last frame is repeated where some are missing."""
    missing = max(0, frames - len(mel))
    return np.ascontiguousarray(np.pad(mel, ((0, missing), (0, 0)), mode="edge")[:frames])

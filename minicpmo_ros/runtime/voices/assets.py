"""The two networks that hear a reference voice, of a checkpoint's assets, in onnxruntime.

They are loaded for one voice and let go: together they have half a gigabyte, and what they find is
kept (`runtime.voices.cache`). They are run as CosyVoice runs them, inputs told by their places.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import CheckpointError, EngineError
from minicpmo_ros.model.fingerprint import digests
from minicpmo_ros.runtime.ort.stages import library, reason, session

TOKENIZER = "speech_tokenizer_v2_25hz.onnx"
SPEAKER = "campplus.onnx"
CODEBOOK = 6561
"""Speech tokens are below it: eight digits of base three."""
SPEAKER_SIZE = 192
MELS, BANK = 128, 80
_FETCH = "`minicpmo checkpoint fetch` brings it"
_REPLACE = f"Remove it, and {_FETCH} again"


class VoiceAssets:
    """The files of one folder, assets/token2wav of a checkpoint.

    Args:
        threads: of onnxruntime; 0: one a core.
    """

    def __init__(self, folder: Path | str, threads: int = 0) -> None:
        self.folder = Path(folder).expanduser()
        self._threads = threads

    def digest(self, memory: Path | None) -> str:
        """SHA-256 of both files, which are read once: see `model.fingerprint.digests`.

        Raises:
            CheckpointError: one is missing or cannot be read.
        """
        files = [self._file(name).resolve() for name in (TOKENIZER, SPEAKER)]
        return hashlib.sha256(" ".join(digests(files, memory)).encode()).hexdigest()

    def tokens(self, log_mel: NDArray[np.float32]) -> NDArray[np.int64]:
        """Speech tokens, 25 a second, of `mel.mirrored_log_mel` [128, frames]: int64, one for four
        frames and for what is left of them; a network may leave out the last.

        Raises:
            CheckpointError: the file is missing, truncated or another network.
            EngineError: onnxruntime is missing or too old.
        """
        file = self._file(TOKENIZER)
        network = self._network(file, [("tensor(float)", MELS, 1), ("tensor(int", None, None)])
        length = network.get_inputs()[1]
        kind = np.int64 if "int64" in length.type else np.int32
        frames = log_mel.shape[1]
        found = self._run(file, network, [log_mel[None], np.array([frames], kind)]).reshape(-1)
        wanted = -(-frames // 4)
        if not 0 <= wanted - len(found) <= 1:
            raise CheckpointError(
                f"{file} gave {len(found)} tokens for {frames / 100:.2f} s; one that gives 25 a"
                f" second gives {wanted}: it is another tokenizer. {_REPLACE}"
            )
        tokens = found.astype(np.int64)
        if tokens.min() < 0 or tokens.max() >= CODEBOOK:
            raise CheckpointError(
                f"{file} gave tokens from {tokens.min()} to {tokens.max()}; those of the vocoder"
                f" are 0 to {CODEBOOK - 1}: it is another tokenizer. {_REPLACE}"
            )
        return tokens

    def speaker(self, bank: NDArray[np.float32]) -> NDArray[np.float32]:
        """Who speaks, float32 [192], of `voice_features.fbank` [frames, 80].

        Raises:
            CheckpointError, EngineError: see `tokens`.
        """
        file = self._file(SPEAKER)
        network = self._network(file, [("tensor(float)", BANK, 2)])
        found = self._run(file, network, [bank[None]]).reshape(-1).astype(np.float32)
        if len(found) != SPEAKER_SIZE:
            raise CheckpointError(
                f"{file} gave {len(found)} numbers, not {SPEAKER_SIZE}: it is another network."
                f" {_REPLACE}"
            )
        if not (np.isfinite(found).all() and found.any()):
            raise CheckpointError(
                f"{file} gave NaN, infinity or nothing but zeros for who speaks; it is damaged."
                f" {_REPLACE}"
            )
        return found

    def _file(self, name: str) -> Path:
        file = self.folder / name
        if not file.is_file():
            raise CheckpointError(
                f"{file} is missing, without which no voice can be taken from a sound file: the"
                f" assets of the vocoder lie in assets/token2wav of a checkpoint. {_FETCH}"
            )
        return file

    def _network(self, file: Path, takes: list[tuple[str, int | None, int | None]]) -> Any:
        """A session, its inputs held against what they should be: type, and size at an axis."""
        library()  # an EngineError of its own where it is missing
        try:
            network = session(
                file,
                self._threads,
                repair=f"its {file.stat().st_size} bytes may not be all of it. {_REPLACE}",
            )
        except EngineError as error:
            raise CheckpointError(str(error)) from None
        inputs = network.get_inputs()
        fits = len(inputs) == len(takes) and all(
            one.type.startswith(kind) and _has(one.shape, size, axis)
            for one, (kind, size, axis) in zip(inputs, takes, strict=True)
        )
        if not fits:
            named = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            wanted = {
                TOKENIZER: f"floats [1, {MELS}, frames] and their number, an integer [1]",
                SPEAKER: f"floats [1, frames, {BANK}]",
            }[file.name]
            raise CheckpointError(
                f"{file} is another network: it takes {named}, not {wanted}. {_REPLACE}"
            )
        return network

    def _run(self, file: Path, network: Any, given: list[NDArray[Any]]) -> NDArray[Any]:
        feed = {one.name: array for one, array in zip(network.get_inputs(), given, strict=True)}
        try:
            found = network.run(None, feed)[0]
        except Exception as error:
            raise CheckpointError(f"{file} cannot be run: {reason(error)}. {_REPLACE}") from None
        return np.asarray(found)


def _has(shape: list[Any], size: int | None, axis: int | None) -> bool:
    """Whether a shape of three axes has this size at one, or leaves it open."""
    if axis is None:
        return True
    return len(shape) == 3 and (not isinstance(shape[axis], int) or shape[axis] == size)

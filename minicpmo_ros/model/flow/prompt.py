"""What the flow network knows of a voice, and whether what it is given can be said at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.flow.config import FlowConfig


@dataclass(frozen=True)
class VoicePrompt:
    """A reference voice.

    tokens: its speech codes, [T], 25 a second. mel: its frames, float32 [2 T, mels], 50 a second,
    natural logarithms of magnitudes. voice: the speaker network's vector, float32 [192].
    """

    tokens: NDArray[np.int64]
    mel: NDArray[np.float32]
    voice: NDArray[np.float32]


def checked_tokens(tokens: Sequence[int] | NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Codes of speech, one behind the other: int64 [tokens].

    Args:
        count: codes there are.

    Raises:
        InputError: they are no whole numbers, or not in [0, count).
    """
    found = np.asarray(tokens)
    if found.size == 0:
        return np.zeros(0, dtype=np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise InputError(
            f"speech tokens are {found.dtype} {list(found.shape)}; they should be whole numbers,"
            " one behind the other"
        )
    wrong = (found < 0) | (found >= count)
    if wrong.any():
        raise InputError(
            f"{wrong.sum()} of {found.size} speech tokens are not in 0 to {count - 1}, the first"
            f" of them {found[wrong][0]} at {int(wrong.argmax())}; the sign of the end is no speech"
        )
    return found.astype(np.int64)


def checked_prompt(prompt: VoicePrompt, config: FlowConfig) -> VoicePrompt:
    """The prompt in the dtypes it should have.

    Raises:
        InputError: no tokens, or not the shapes that go with each other, or NaN.
    """
    tokens = checked_tokens(prompt.tokens, config.tokens)
    mel, voice = (np.asarray(x, dtype=np.float32) for x in (prompt.mel, prompt.voice))
    if not len(tokens):
        raise InputError("the voice has no speech tokens; it needs a sound of a few seconds")
    frames = (config.conformer.up * len(tokens), config.mels)
    if mel.shape != frames:
        raise InputError(
            f"the voice's mel is {list(mel.shape)}; for its {len(tokens)} tokens it should be"
            f" {list(frames)}"
        )
    if voice.shape != (config.voice,):
        raise InputError(f"the voice's vector is {list(voice.shape)}, not [{config.voice}]")
    if not (np.isfinite(mel).all() and np.isfinite(voice).all() and voice.any()):
        raise InputError("the voice's mel or vector has NaN, or the vector is all zeros")
    return VoicePrompt(tokens, mel, voice)

"""The reflex brain's own voice: a sentence becomes speech, or a reason why it could not."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from minicpmo_ros.brains.api import Speech
from minicpmo_ros.messages import WordMark


class Utterance(Protocol):
    """A spoken sentence: int16 [samples] mono at rate_hz, with the samples of each word."""

    @property
    def data(self) -> np.ndarray: ...

    @property
    def rate_hz(self) -> int: ...

    @property
    def words(self) -> tuple[WordMark, ...]: ...

    @property
    def text(self) -> str: ...


class Synthesiser(Protocol):
    """Turns a sentence into sound; media's espeak-ng synthesiser is one."""

    def speak(self, text: str) -> Utterance: ...


def say(synthesiser: Synthesiser | None, text: str) -> tuple[tuple[Speech, ...], str]:
    """Speak a sentence: its speech and "", or no speech and why there is none.

    Any failure becomes a reason: this is the brain that must go on when other things have failed.
    """
    if synthesiser is None:
        return (), "not spoken: there is no speech synthesiser"
    try:
        made = synthesiser.speak(text)
        data = np.asarray(made.data)
        if data.dtype != np.int16 or data.ndim != 1 or len(data) == 0:
            return (), (
                f"not spoken: the synthesiser gave {data.dtype} of shape {data.shape}, "
                "not int16 [samples]"
            )
        return (Speech(data, made.text or text, tuple(made.words), made.rate_hz),), ""
    except Exception as error:  # foreign code; the decision names its failure
        return (), f"not spoken: {type(error).__name__}: {error}"

"""What the model wants to say, as text, as codes of sound and, with a vocoder, as sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.duplex.config import DuplexConfig
from minicpmo_ros.duplex.speech import CodeSampler, SpeechTurn
from minicpmo_ros.duplex.timing import Stages
from minicpmo_ros.duplex.vocoding import CodeStream, Vocoder
from minicpmo_ros.errors import BrainError, KvFullError
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Context, Network, Rows


@dataclass(frozen=True, eq=False)
class Utterance:
    """What is said in one unit.

    text: whole characters only. codes: of speech. sound: float32 at 24 kHz, None without a vocoder.
    problem: why there is no speech of it; empty when there is.
    """

    text: str = ""
    codes: tuple[int, ...] = ()
    sound: NDArray[np.float32] | None = None
    problem: str = ""


class Mouth:
    """The robot's turn on its way out.

    Args:
        context: of the speech decoder; None: only text is made.
        vocoder: makes sound of the codes; None: there are only codes.
        rng: draws codes.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        config: DuplexConfig,
        context: Context | None,
        vocoder: Vocoder | None,
        rng: np.random.Generator,
    ) -> None:
        self._tokenizer = tokenizer
        self._compat = config.reference_compat
        self._text = tokenizer.stream()
        self._turn: SpeechTurn | None = None
        self._codes: CodeStream | None = None
        if context is not None:
            sampler = CodeSampler(
                network.config.speech_sizes().eos,
                config.speech_temperature,
                config.speech_repetition,
                rng=rng,
            )
            self._turn = SpeechTurn(network, context, sampler)
            self._codes = CodeStream(vocoder) if vocoder is not None else None

    def say(
        self, ids: Sequence[int], hidden: Sequence[Rows], stages: Stages, *, last: bool
    ) -> Utterance:
        """Go on with the turn; `last` ends it. Text stays, whatever fails behind it."""
        text = self._text.push(*ids) + (self._text.finish() if last else "")
        if self._compat:
            text = self._tokenizer.decode(ids)  # halves of characters and all
        if self._turn is None:
            return Utterance(text)
        try:
            with stages.timed("speech"):
                codes = self._chunk(self._turn, ids, hidden, last)
            sound = None
            if self._codes is not None:
                with stages.timed("vocoder"):
                    sound = self._codes.push(codes, last=last)
            if last:
                self._turn.restart()
            return Utterance(text, tuple(codes), sound)
        except BrainError as error:
            self.fall_silent()
            return Utterance(text, problem=f"speech of a unit is lost: {error}")

    def fall_silent(self) -> None:
        """Drop what of the turn was not said yet."""
        self._text.finish()
        if self._codes is not None:
            self._codes.restart()
        # The reference forgets this, so that a new turn sounds like the middle of the old one.
        if self._turn is not None and not self._compat:
            self._turn.restart()

    @staticmethod
    def _chunk(
        turn: SpeechTurn, ids: Sequence[int], hidden: Sequence[Rows], last: bool
    ) -> list[int]:
        try:
            return turn.chunk(ids, hidden, last=last)
        except KvFullError:
            # After two minutes without an end the decoder goes on as at the start of a turn.
            turn.restart()
            return turn.chunk(ids, hidden, last=last)

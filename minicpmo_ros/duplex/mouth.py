"""What the model wants to say, as text, as codes of sound and, with a vocoder, as sound."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.duplex.config import DuplexConfig
from minicpmo_ros.duplex.speech import CODES_PER_CHUNK, CodeSampler, SpeechTurn
from minicpmo_ros.duplex.timed_words import TimedWords
from minicpmo_ros.duplex.timing import Stages
from minicpmo_ros.duplex.vocoding import RATE_HZ, SAMPLES_PER_CODE, CodeStream, Vocoder
from minicpmo_ros.errors import KvFullError, MinicpmoError
from minicpmo_ros.messages import WordMark
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Context, Network, Rows


@dataclass(frozen=True, eq=False)
class Utterance:
    """What is said in one unit.

    text: whole characters only. codes: of speech. sound: float32 at 24 kHz, None without a vocoder.
    problem: why there is no speech of it; empty when there is. words: those that end in the sound,
    which may be of the unit before, with their samples in it.
    """

    text: str = ""
    codes: tuple[int, ...] = ()
    sound: NDArray[np.float32] | None = None
    problem: str = ""
    words: tuple[WordMark, ...] = ()


@dataclass(frozen=True, eq=False)
class Piece:
    """Some of a unit's sound, float32 at 24 kHz, and the words that end in it."""

    sound: NDArray[np.float32]
    words: tuple[WordMark, ...]


@dataclass(eq=False)
class Saying:
    """What is said in one unit, on its way: text at once, the rest as `pieces` is gone through.

    codes: drawn so far. problem: see `Utterance`; known when the pieces end.
    """

    text: str = ""
    pieces: Generator[Piece, None, None] = field(default_factory=lambda: _nothing())
    codes: list[int] = field(default_factory=list)
    problem: str = ""
    sounds: bool = False
    """There is a vocoder."""

    _whole: Utterance | None = None

    def finish(self) -> Utterance:
        """Make what is not made yet: all of it, but for the pieces that were taken before."""
        if self._whole is None:
            self._whole = self._joined(list(self.pieces))
        return self._whole

    def _joined(self, pieces: list[Piece]) -> Utterance:
        sound = None
        if self.sounds and not self.problem:
            sound = np.concatenate([np.zeros(0, np.float32), *(one.sound for one in pieces)])
        codes = () if self.problem else tuple(self.codes)
        words: list[WordMark] = []
        at = 0
        for one in pieces:
            words += [WordMark(w.text, w.start_sample + at, w.end_sample + at) for w in one.words]
            at += len(one.sound)
        return Utterance(self.text, codes, sound, self.problem, tuple(words))


_BEGUN = Piece(np.zeros(0, np.float32), ())


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
        self._lead = 0 if self._compat else config.speech_lead_ms * RATE_HZ // 1000
        self._text = tokenizer.stream()
        self._words = TimedWords()
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
            if vocoder is not None:
                self._codes = CodeStream(
                    vocoder, config.speech_chunks, reference_compat=self._compat
                )
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._words.restart()
        self._drawn = 0  # codes
        self._sounded = 0  # samples, those of the lead left out
        self._led = False
        self._drawn_all = False

    def begin(
        self, ids: Sequence[int], hidden: Sequence[Rows], stages: Stages, *, last: bool
    ) -> Saying:
        """Go on with the turn; `last` ends it. Text is there, whatever fails behind it.

        Pieces that nobody wants any more are closed, as a generator is: the turn's speech is then
        as after `fall_silent`.
        """
        text = self._text.push(*ids) + (self._text.finish() if last else "")
        if self._compat:
            text = self._tokenizer.decode(ids)  # halves of characters and all
        saying = Saying(text, sounds=self._codes is not None)
        if self._turn is not None:
            drawn = self._draw(self._turn, ids, hidden, last)
            saying.pieces = self._pieces(saying, drawn, stages, last)
            next(saying.pieces)  # one that was never begun would be closed without a word
        return saying

    def say(
        self, ids: Sequence[int], hidden: Sequence[Rows], stages: Stages, *, last: bool
    ) -> Utterance:
        """The same, whole."""
        return self.begin(ids, hidden, stages, last=last).finish()

    def fall_silent(self) -> None:
        """Drop what of the turn was not said yet."""
        self._text.finish()
        if self._codes is not None:
            self._codes.restart()
        self._begin_turn()
        # The reference forgets this, so that a new turn sounds like the middle of the old one.
        if self._turn is not None and not self._compat:
            self._turn.restart()

    @staticmethod
    def _draw(
        turn: SpeechTurn, ids: Sequence[int], hidden: Sequence[Rows], last: bool
    ) -> Iterator[int]:
        try:
            yield from turn.stream(ids, hidden, last=last)
        except KvFullError:
            # After two minutes without an end the decoder goes on as at the start of a turn.
            turn.restart()
            yield from turn.stream(ids, hidden, last=last)

    def _pieces(
        self, saying: Saying, drawn: Iterator[int], stages: Stages, last: bool
    ) -> Generator[Piece, None, None]:
        finished = False
        try:
            yield _BEGUN
            made = self._sounds_at_once if self._compat else self._sounds
            for sound in made(saying, drawn, stages, last):
                if len(sound):
                    yield self._piece(sound, saying.text, last)
            if last:
                self._begin_turn()
                if self._turn is not None:
                    self._turn.restart()
            finished = True
        except MinicpmoError as error:
            saying.problem = f"speech of a unit is lost: {error}"
        finally:
            if not finished:
                self.fall_silent()

    def _sounds(
        self, saying: Saying, drawn: Iterator[int], stages: Stages, last: bool
    ) -> Iterator[NDArray[np.float32]]:
        """Sound as soon as there are codes enough for a chunk of it."""
        # How many codes there will be is known only where a unit is neither the first nor the last.
        self._words.begin(
            saying.text, self._drawn * SAMPLES_PER_CODE, CODES_PER_CHUNK * SAMPLES_PER_CODE
        )
        while True:
            with stages.timed("speech"):
                code = next(drawn, None)
            if code is None:
                break
            saying.codes.append(code)
            if self._codes is not None:
                with stages.timed("vocoder"):
                    sound = self._codes.feed([code])
                yield sound
        self._drawn += len(saying.codes)
        self._drawn_all = last
        self._words.settle(len(saying.codes) * SAMPLES_PER_CODE)
        if self._codes is not None:
            with stages.timed("vocoder"):
                sound = self._codes.flush(last=last)
            yield sound

    def _sounds_at_once(
        self, saying: Saying, drawn: Iterator[int], stages: Stages, last: bool
    ) -> Iterator[NDArray[np.float32]]:
        with stages.timed("speech"):
            saying.codes += drawn
        if self._codes is not None:
            with stages.timed("vocoder"):
                sound = self._codes.push(saying.codes, last=last)
            yield sound

    def _piece(self, sound: NDArray[np.float32], text: str, last: bool) -> Piece:
        if self._compat:
            # Where in it codes begin to sound is not known: there is silence between.
            words = TimedWords()
            words.begin(text, 0, len(sound))
            return Piece(sound, words.take(0, len(sound), last=True))
        first, self._sounded = self._sounded, self._sounded + len(sound)
        if self._led or last or not self._lead:
            lead = 0
        else:
            lead = self._lead
            sound = np.concatenate((np.zeros(lead, np.float32), sound))
        self._led = True
        marks = self._words.take(first, self._sounded, last=self._drawn_all)
        return Piece(
            sound,
            tuple(WordMark(w.text, w.start_sample + lead, w.end_sample + lead) for w in marks),
        )


def _nothing() -> Generator[Piece, None, None]:
    yield from ()

"""The local brain's ways to converse: duplex, streamed turns, and questions only."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.brains.api import Speech, Surroundings, UnitResult
from minicpmo_ros.brains.local.config import LocalConfig
from minicpmo_ros.brains.local.early import EarlyLook
from minicpmo_ros.brains.local.pictures import as_float, readable
from minicpmo_ros.brains.local.unasked import Unasked
from minicpmo_ros.brains.local.words import SpokenText, as_speech
from minicpmo_ros.brains.reflex import Synthesiser
from minicpmo_ros.duplex.conversation import Conversation
from minicpmo_ros.duplex.dialogue import Dialogue, unspeakable
from minicpmo_ros.duplex.outcome import Outcome
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.duplex.timing import Stages
from minicpmo_ros.duplex.vocoding import Vocoder
from minicpmo_ros.errors import BrainError
from minicpmo_ros.messages import NS_PER_MS, Action, Picture, StageTiming
from minicpmo_ros.model import prompts
from minicpmo_ros.timeline.unit import Unit

if TYPE_CHECKING:
    from minicpmo_ros.model.tokenizer import Tokenizer
    from minicpmo_ros.runtime.api import Network

GIB = 2**30
Voice = NDArray[np.float32] | None


class Mode(Protocol):
    """What the brain does with units; see `brains.api.Brain` for the calls."""

    @property
    def memory(self) -> str:
        """What its KV cache takes, in words."""

    def open(self, language: str, text: prompts.PromptText | None, voice: Voice) -> None: ...

    def unit(self, unit: Unit, around: Surroundings) -> UnitResult: ...

    def picture(self, picture: Picture) -> None: ...

    def settle(self) -> None: ...

    def interrupt(self) -> None: ...

    def remember(self, heard: str, unit: int) -> None: ...


class Duplex:
    """Listens and speaks at the same time, as the model decides.

    Args:
        vocoder: speaks in the model's own voice; None: the synthesiser speaks its text.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        config: LocalConfig,
        synthesiser: Synthesiser | None,
        seed: int,
        vocoder: Vocoder | None = None,
    ) -> None:
        duplex = replace(config.duplex, speaks=vocoder is not None)
        self.conversation = Conversation(network, tokenizer, duplex, seed=seed, vocoder=vocoder)
        self._vocoder = vocoder
        self._tokenizer = tokenizer
        self._config = config
        self._spoken = SpokenText(synthesiser)
        self._unasked = Unasked(config.unasked_after_s)
        self._early = EarlyLook(config.pictures_per_unit)
        self._ahead: list[Shown] = []  # looked at, of units that have not closed

    @property
    def memory(self) -> str:
        context = self.conversation.context
        return memory_of(context.capacity, context.nbytes)

    def open(self, language: str, text: prompts.PromptText | None, voice: Voice) -> None:
        prompt = prompts.duplex_prompt(language, self._config.scene, text)
        self.conversation.open(*prompt.ids(self._tokenizer), voice)
        self._spoken.drop()
        self._unasked.forget()
        self._early = EarlyLook(self._config.pictures_per_unit)
        self._ahead = []

    def unit(self, unit: Unit, around: Surroundings) -> UnitResult:
        self._unasked.notice(unit, around)
        self._early.unit_closed(unit.start_ns, unit.end_ns)
        self._ahead = [one for one in self._ahead if one.key >= unit.end_ns]
        shown, unreadable = readable(unit.pictures)
        was_open = self.conversation.turn_open
        outcome = self.conversation.hear(
            as_float(unit.samples), shown, key=unit.index, streamed=True
        )
        if was_open and not self.conversation.turn_open and outcome.listens:
            self._spoken.drop()
        speech, rest, silent, stages = self._speech(outcome)
        remarks = [
            _reason(outcome),
            silent,
            f"a picture is unreadable: {unreadable}" if unreadable else "",
        ]
        context = self.conversation.context
        return UnitResult(
            Action.LISTEN if outcome.listens else Action.SPEAK,
            outcome.saying.text,
            outcome.end_of_turn,
            "; ".join(filter(None, remarks)),
            speech,
            rest,
            self._unasked.follow(
                unit,
                speaks=not outcome.listens,
                text=outcome.saying.text,
                end_of_turn=outcome.end_of_turn,
            ),
            outcome.p_listen,
            outcome.p_speak,
            context.length,
            context.capacity,
            timings(stages),
        )

    def _speech(
        self, outcome: Outcome
    ) -> tuple[tuple[Speech, ...], Generator[Speech, None, None] | None, str, Stages]:
        """Speech that is there, that which is yet to be made, why there is none, and how long all
        of it took so far."""
        if outcome.listens:
            return (), None, "", Stages(outcome.ms)
        if self._vocoder is None:
            stages = Stages(outcome.ms)
            with stages.timed("synthesis"):
                speech, silent = self._spoken.push(outcome.saying.text, last=outcome.end_of_turn)
            return tuple(speech), None, silent, stages
        pieces = as_speech(outcome.saying)
        try:
            first = next(pieces, None)
        except BrainError as error:
            return (), None, str(error), Stages(outcome.ms)
        made = () if first is None else (first,)
        return made, None if first is None else pieces, "", Stages(outcome.ms)

    def picture(self, picture: Picture) -> None:
        if not self._early.worth(picture.stamp_ns):
            return
        shown, _ = readable((picture,))  # one that is unreadable is told of with its unit
        self._ahead = (self._ahead + shown)[-self._config.pictures_per_unit :]
        self._show()

    def _show(self) -> None:
        end_ns = self._early.end_ns
        assert end_ns is not None
        self.conversation.show([one for one in self._ahead if one.key < end_ns])

    def settle(self) -> None:
        self.conversation.settle()
        if self._ahead:
            self._show()

    def interrupt(self) -> None:
        self.conversation.interrupt()
        self._spoken.drop()
        self._unasked.cut()

    def remember(self, heard: str, unit: int) -> None:
        self.conversation.remember(heard, unit)


class Streaming:
    """Turn by turn: reads what the user says and shows, and replies when the user is silent."""

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        config: LocalConfig,
        synthesiser: Synthesiser | None,
        seed: int,
    ) -> None:
        self.dialogue = Dialogue(
            network,
            tokenizer,
            config.dialogue(),
            forbidden=unspeakable(tokenizer),
            seed=seed,
        )
        self._config = config
        self._spoken = SpokenText(synthesiser)
        self._forget()

    def _forget(self) -> None:
        self._before: tuple[NDArray[np.float32], list[Shown]] | None = None
        self._voice_ns: int | None = None  # end of the user's voice in the turn that is open

    @property
    def memory(self) -> str:
        context = self.dialogue.context
        return memory_of(context.capacity, context.nbytes)

    def open(self, language: str, text: prompts.PromptText | None, voice: Voice) -> None:
        self.dialogue.open(prompts.chat_prompt(language, text, voice=voice is not None), voice)
        self._spoken.drop()
        self._forget()

    def unit(self, unit: Unit, around: Surroundings) -> UnitResult:
        stages = Stages()
        sound = as_float(unit.samples)
        shown, unreadable = readable(unit.pictures)
        note = f"; a picture is unreadable: {unreadable}" if unreadable else ""
        if self.dialogue.replying:
            return self._reply(stages, "reply goes on" + note)
        spans = around.voice
        if spans:
            if self._voice_ns is None and self._before is not None:
                # The voice may have begun a little before it was noticed.
                with stages.timed("prefill"):
                    self.dialogue.hear(*self._before)
            self._voice_ns = max(
                unit.end_ns if span.stop_ns is None else span.stop_ns for span in spans
            )
        self._before = None
        if self._voice_ns is not None:
            self._voice_ns = min(self._voice_ns, unit.end_ns)  # the clock may have been set back
        if self._voice_ns is None:
            self._before = sound, shown
            return self._listen(stages, "nobody speaks" + note)
        with stages.timed("prefill"):
            self.dialogue.hear(sound, shown)
        silent_ms = (unit.end_ns - self._voice_ns) / NS_PER_MS
        if silent_ms < self._config.turn_end_ms and not self.dialogue.must_reply:
            return self._listen(stages, "the user's turn goes on" + note)
        self._voice_ns = None
        with stages.timed("prefill"):
            self.dialogue.begin(prompts.reply_turn())
        return self._reply(stages, f"the user is silent for {silent_ms:.0f} ms" + note)

    def _listen(self, stages: Stages, reason: str) -> UnitResult:
        context = self.dialogue.context
        return UnitResult(
            Action.LISTEN,
            reason=reason,
            kv_length=context.length,
            kv_capacity=context.capacity,
            timings=timings(stages),
        )

    def _reply(self, stages: Stages, reason: str) -> UnitResult:
        with stages.timed("decode"):
            piece = self.dialogue.more(self._config.reply_tokens_per_unit)
        with stages.timed("synthesis"):
            speech, silent = self._spoken.push(piece.text, last=piece.done)
        context = self.dialogue.context
        return UnitResult(
            Action.SPEAK,
            piece.text,
            piece.done,
            "; ".join(filter(None, (reason, silent))),
            tuple(speech),
            kv_length=context.length,
            kv_capacity=context.capacity,
            timings=timings(stages),
        )

    def picture(self, picture: Picture) -> None:
        """Nothing is read before it is known that the user speaks."""

    def settle(self) -> None: ...

    def interrupt(self) -> None:
        self.dialogue.stop()
        self._spoken.drop()

    def remember(self, heard: str, unit: int) -> None:
        duplex = self._config.duplex
        if duplex.forgets_unheard and not duplex.reference_compat:
            self.dialogue.remember(heard)


class ChatOnly:
    """Answers questions; units are not looked at."""

    memory = ""

    def __init__(self, *_: object) -> None: ...

    def open(self, language: str, text: prompts.PromptText | None, voice: Voice) -> None: ...

    def unit(self, unit: Unit, around: Surroundings) -> UnitResult:
        return UnitResult(Action.LISTEN, reason="mode chat: only questions are answered")

    def picture(self, picture: Picture) -> None: ...

    def settle(self) -> None: ...

    def interrupt(self) -> None: ...

    def remember(self, heard: str, unit: int) -> None: ...


def memory_of(tokens: int, nbytes: int) -> str:
    return f"KV cache of {tokens} tokens: {nbytes / GIB:.2f} GiB"


def timings(stages: Mapping[str, float]) -> tuple[StageTiming, ...]:
    """As a decision has them."""
    return tuple(StageTiming(stage, ms) for stage, ms in stages.items())


def _reason(outcome: Outcome) -> str:
    if outcome.listens:
        return "the model listens"
    return "the model speaks" + (" and ends its turn" if outcome.end_of_turn else "")

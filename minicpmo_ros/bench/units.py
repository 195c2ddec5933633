"""What a unit takes around the network: every call into the runtime is timed, the rest is ours."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from minicpmo_ros.bench.noise import noise_picture, noise_sound
from minicpmo_ros.duplex.config import DuplexConfig
from minicpmo_ros.duplex.conversation import Conversation
from minicpmo_ros.duplex.outcome import Outcome
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.duplex.sampler import TokenSampler
from minicpmo_ros.duplex.vocoding import Vocoder
from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.prompts import duplex_prompt
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Logits, Network

MS = 1e3
WORDS = 7  # of a unit that speaks: about what a second of speech has
TURN = 3  # units of speech in a row
LOOP = 8  # units: some of silence, a turn, its end


class Clocked:
    """Any object, whose calls' time is added up. Nested calls count once."""

    def __init__(self, inner: Any, clock: _Clock) -> None:
        self._inner, self._clock = inner, clock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._clock:
                result = found(*args, **kwargs)
            # Contexts and streams are the runtime's, too.
            if name in ("context", "speech", "ears"):
                return Clocked(result, self._clock)
            return result

        return call


class _Clock:
    def __init__(self) -> None:
        self.ms = 0.0
        self._depth = 0
        self._began = 0.0

    def __enter__(self) -> None:
        if not self._depth:
            self._began = time.perf_counter()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self.ms += (time.perf_counter() - self._began) * MS


class Script:
    """Draws as the real sampler does, and then says what the script says."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._sampler = TokenSampler(
            tokenizer.control,
            tokenizer.bad_ids,
            DuplexConfig().sampler,
            np.random.default_rng(0),
        )
        self.tokens: list[int] = []

    def __call__(self, logits: Logits) -> int:
        self._sampler(logits)
        return self.tokens.pop(0)


def unit_ms(
    network: Network,
    tokenizer: Tokenizer,
    units: int,
    config: DuplexConfig,
    advance: Callable[[], None] = lambda: None,
    prompt_tokens: int = 0,
    speak: Callable[[str], object] | None = None,
    vocoder: Vocoder | None = None,
) -> dict[str, float]:
    """Medians over units with a picture each, five that listen and three that speak in turn.

    Args:
        prompt_tokens: so long a prompt is read first, beside the model's own.
        speak: makes sound of a unit's words.
        vocoder: makes sound of a unit's codes, piece by piece as the node publishes it: "speak" is
            then to the decision alone.

    Returns:
        ms: listening and speaking units, from their end to what they came to, with their picture
        looked at then or, "_early", before; "settle", which is after that; "loop", what of a unit
        is neither network nor the cutting of its picture, and its share of the whole in percent;
        with `speak`, "first_sound" and "first_sound_early", from the end of the unit that begins a
        turn to the sound of its words; with `vocoder`, "first_own_sound" and
        "first_own_sound_early", to the first samples of it.

    Raises:
        EngineError: speech fails; the message says why.
    """
    clock = _Clock()
    script = Script(tokenizer)
    conversation = Conversation(
        Clocked(network, clock),  # type: ignore[arg-type]
        tokenizer,
        config,
        sampler=script,
        vocoder=vocoder,
    )
    prefix, suffix = duplex_prompt().ids(tokenizer)
    filling = tokenizer.encode(" and so on") * prompt_tokens
    conversation.open([*filling[:prompt_tokens], *prefix], suffix)
    control = tokenizer.control
    words = tokenizer.encode(" one two three four five six seven eight nine ten")[:WORDS]
    second, picture = noise_sound(1), noise_picture(0)
    how = {} if vocoder is None else {"streamed": True}
    spans: dict[str, list[float]] = defaultdict(list)
    whole = 0.0
    for number in range(units):
        place = number % LOOP
        speaks = place >= LOOP - TURN
        script.tokens = script_tokens(number, control, words)
        shown = [Shown(number, picture)]
        early = number // LOOP % 2 == 1
        if early:
            conversation.show(shown)
        clock.ms = 0.0
        began = time.perf_counter()
        outcome = conversation.hear(second, shown, **how)
        decided, of_network = time.perf_counter(), clock.ms
        if place == LOOP - TURN and (sounds := _first_sound(outcome, speak, vocoder)):
            spans[sounds + "_early" * early].append((time.perf_counter() - began) * MS)
        if outcome.utterance.problem:  # and what of it was not made yet is made here
            raise EngineError(outcome.utterance.problem)
        heard, clock.ms = time.perf_counter(), of_network
        conversation.settle()
        ended = time.perf_counter()
        if number:  # the first warms up
            kind = ("speak" if speaks else "listen") + ("_early" if early else "")
            spans[kind].append((decided - began) * MS)
            spans["settle"].append((ended - heard) * MS)
            spent = (decided - began + ended - heard) * MS
            spans["loop"].append(spent - clock.ms - outcome.ms["picture"])
            whole += spent
        advance()
    found = {name: median(values) for name, values in spans.items()}
    found["loop_percent"] = 100.0 * sum(spans["loop"]) / whole
    return found


def _first_sound(
    outcome: Outcome, speak: Callable[[str], object] | None, vocoder: Vocoder | None
) -> str:
    """Make the first sound of a unit; what it is called, empty where there is none."""
    if vocoder is not None:
        return "first_own_sound" if next(outcome.saying.pieces, None) else ""
    if speak is None:
        return ""
    speak(outcome.utterance.text)
    return "first_sound"


def script_tokens(number: int, control: Any, words: Sequence[int]) -> list[int]:
    """What is drawn in a unit: five listen and three speak in turn, of which the last ends."""
    place = number % LOOP
    if place < LOOP - TURN:
        return [control.listen]
    ends = [control.turn_eos] if place == LOOP - 1 else []
    return [control.speak, *words[:WORDS], *ends, control.chunk_eos]

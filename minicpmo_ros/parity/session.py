"""Duplex sessions: the whole conversation, with the reference's mistakes, unit by unit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.duplex.config import DuplexConfig, SamplerConfig, WindowConfig
from minicpmo_ros.duplex.conversation import Conversation
from minicpmo_ros.duplex.outcome import Outcome
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.duplex.vocoding import CODES_PER_SECOND, LOOK_AHEAD
from minicpmo_ros.errors import InputError
from minicpmo_ros.model.prompts import duplex_prompt
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.parity.compare import Row, close, same
from minicpmo_ros.parity.draws import GREEDY, ReferenceNetwork
from minicpmo_ros.parity.entries import Session
from minicpmo_ros.parity.golden import Golden
from minicpmo_ros.parity.inputs import picture, seconds_of, wave
from minicpmo_ros.parity.logits import compare_logits
from minicpmo_ros.parity.stages import Tick
from minicpmo_ros.runtime.api import Logits
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

SECOND_SAMPLES = 24_000
SAMPLES_PER_CODE = 960


class Recorder:
    """A vocoder that notes what it is given, and returns silence as long as sound would be."""

    def __init__(self) -> None:
        self.given: list[list[Any]] = []

    def stream(self, codes: Sequence[int], last: bool) -> NDArray[np.float32]:
        self.given.append([list(codes), last])
        sounding = len(codes) if last else len(codes) - LOOK_AHEAD
        return np.zeros(sounding * SAMPLES_PER_CODE, np.float32)

    def reset(self) -> None:
        """There is nothing to forget."""


class Script:
    """In place of the sampler: returns what one unit's script says, whatever the logits."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.left: list[int] = []

    def begin(self, unit: list[int | str] | None) -> None:
        """Take the ids and names of control tokens of the next unit."""
        self.left = [self._tokenizer.id(t) if isinstance(t, str) else t for t in unit or ()]

    def __call__(self, logits: Logits) -> int:
        if not self.left:
            raise InputError("the script of a unit is over, and its loop asks for another token")
        return self.left.pop(0)


@dataclass(frozen=True, eq=False)
class Played:
    """What came out of a session: as the fields of `Session` that say so, and the logits that each
    unit was decided on, [units, vocab], and all keys at its end, [layers, kv_heads, rows,
    head_dim]."""

    prompt_length: int
    rows: list[dict[str, Any]]
    total_ids: list[int]
    previous_ids: list[int]
    decisions: NDArray[np.float32]
    keys: NDArray[np.float32]


def check_session(
    golden: Golden, session: Session, plain: TorchNetwork, tokenizer: Tokenizer, tick: Tick
) -> Iterator[Row]:
    """A row for what the prompt took, for each field of all units, and for the arrays.

    Args:
        plain: the network, without the bias that the session asks for.
        tick: called after each unit.

    Raises:
        InputError: the pair lacks an array, or its script ends before the loop does.
    """
    name = session.name
    prefix, suffix = duplex_prompt().ids(tokenizer)
    prompt = golden.prompt_prefix or prefix, golden.prompt_suffix or suffix
    played = play(session, prompt, plain, tokenizer, tick)
    yield same(f"{name} prompt_cache_len", played.prompt_length, session.prompt_length)
    for key in dict.fromkeys(key for row in session.rows for key in row):
        found, expected = (
            {f"unit {unit}": row[key] for unit, row in enumerate(rows) if key in row}
            for rows in (played.rows, session.rows)
        )
        yield same(f"{name} {key}", found, expected)
    yield same(f"{name} total_ids", played.total_ids, session.total_ids)
    yield same(f"{name} previous_ids", played.previous_ids, session.previous_ids)
    yield from compare_logits(golden, f"{name}.unit_logits", played.decisions)
    keys = golden.array(f"{name}.K_last8")
    yield close(f"{name}.K_last8", played.keys[:, :, -keys.shape[-2] :], keys)


def play(
    session: Session,
    prompt: tuple[Sequence[int], Sequence[int]],
    plain: TorchNetwork,
    tokenizer: Tokenizer,
    tick: Tick,
) -> Played:
    """The session with our network, by the golden script if there is one.

    Args:
        prompt: ids before and after the reference voice.
    """
    network = ReferenceNetwork(
        plain, session.speech_temperature, session.bias, longest_turn(session.rows)
    )
    script = None if session.script is None else Script(tokenizer)
    recorder = Recorder()
    conversation = Conversation(
        network, tokenizer, _config(session), vocoder=recorder, sampler=script
    )
    conversation.open(*prompt, wave(*session.voice))
    prompt_length = conversation.context.length
    codes = golden_codes(session.rows)
    sound = seconds_of(wave(session.units, session.wave_seed))
    rows: list[dict[str, Any]] = []
    fed: list[int] = []
    for unit, second in enumerate(sound):
        recorder.given.clear()
        network.words.begin_unit()
        if session.script is not None and script is not None:
            script.begin(session.script[unit])
        if session.speaks:
            network.codes.expect([*codes[unit], network.config.speech_sizes().eos])
        outcome = conversation.hear(second, _shown(session, unit))
        conversation.settle()
        fed += [*outcome.fed, tokenizer.control.unit_end]
        rows.append(_row(outcome, conversation, recorder, script))
        tick()
    return Played(
        prompt_length,
        rows,
        fed,
        list(conversation.window.previous),
        np.stack(network.words.decisions),
        conversation.context.keys(conversation.context.length),
    )


def golden_codes(rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    """The codes that the speech decoder wrote in each unit, from what the vocoder was given.

    Each list begins with what the vocoder had seen already, or with silence. A unit's last codes
    may be in the next unit's list; those that were never given are left out.
    """
    given = [
        [code for codes, _ in row.get("vocoder") or () for code in codes[LOOK_AHEAD:]]
        for row in rows
    ]
    stream = itertools.chain.from_iterable(given)
    return [
        list(itertools.islice(stream, int(row.get("n_tts_tokens", len(fresh)))))
        for row, fresh in zip(rows, given, strict=True)
    ]


def longest_turn(rows: Sequence[dict[str, Any]]) -> int:
    """Rows of the speech decoder's cache that suffice if all units are one turn."""
    return sum(int(row.get("n_tokens", 0)) + 1 + CODES_PER_SECOND for row in rows)


def _config(session: Session) -> DuplexConfig:
    rows = max((int(row.get("cache", 0)) for row in session.rows), default=0)
    return DuplexConfig(
        sampler=SamplerConfig(greedy=True, length_penalty=session.length_penalty),
        window=WindowConfig(session.window, **session.options),
        # Units are read before a window slides: more than is left after any of them.
        kv_capacity=max(8192, 2 * rows),
        forced_listens=session.forced_listens,
        speaks=session.speaks,
        speech_temperature=GREEDY,
        reference_compat=True,
    )


def _shown(session: Session, unit: int) -> list[Shown]:
    if session.pictures is None:
        return []
    width, height, seed = session.pictures
    return [Shown(unit, picture(width, height, seed + unit))]


def _row(
    outcome: Outcome, conversation: Conversation, recorder: Recorder, script: Script | None
) -> dict[str, Any]:
    """What came out of a unit, as the JSON has it. A unit without speech is a second of silence."""
    said = outcome.utterance
    spoken = 0 if said.sound is None else len(said.sound)
    row = {
        "listen": outcome.listens,
        "end_of_turn": outcome.end_of_turn,
        "n_tokens": len(outcome.ids),
        "n_tts_tokens": len(said.codes),
        "cache": conversation.context.length,
        "units": len(conversation.window.units),
        "preserve": conversation.window.preserved,
        "sampled_ids": list(outcome.sampled),
        "text": said.text,
        "samples": spoken or SECOND_SAMPLES,
        "vocoder": list(recorder.given),
    }
    if script is not None:
        row["scripted_ids_not_asked_for"] = list(script.left)
    return row

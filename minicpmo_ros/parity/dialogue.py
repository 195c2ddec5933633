"""Duplex sessions: the whole conversation, with the reference's mistakes, unit by unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.duplex.config import DuplexConfig, SamplerConfig, WindowConfig
from minicpmo_ros.duplex.conversation import Conversation, Outcome
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.duplex.vocoding import LOOK_AHEAD
from minicpmo_ros.errors import InputError
from minicpmo_ros.model.prompts import duplex_prompt
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.parity.compare import Row, close, same
from minicpmo_ros.parity.draws import GREEDY, ReferenceNetwork
from minicpmo_ros.parity.golden import Dialogue, Golden
from minicpmo_ros.parity.inputs import picture, seconds_of, wave
from minicpmo_ros.parity.logits import compare_logits
from minicpmo_ros.runtime.api import Logits
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

SECOND_SAMPLES = 24_000
SAMPLES_PER_CODE = 960

# The window's settings, as the reference calls them.
OPTIONS = {
    "basic_window_high_tokens": "high_tokens",
    "basic_window_low_tokens": "low_tokens",
    "context_max_units": "max_units",
    "context_previous_max_tokens": "previous_tokens",
}


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


def check_dialogue(
    golden: Golden,
    dialogue: Dialogue,
    plain: TorchNetwork,
    tokenizer: Tokenizer,
    tick: Callable[[], None],
) -> Iterator[Row]:
    """A row for what the prompt took, for each field of all units, and for the arrays.

    Args:
        plain: the network, without the bias that the dialogue asks for.
        tick: called after each unit.

    Raises:
        InputError: the pair lacks an array, or names an option that is not known here.
    """
    name = dialogue.name
    network = ReferenceNetwork(plain, dialogue.speech_temperature, dialogue.bias)
    script = Script(tokenizer) if dialogue.script else None
    recorder = Recorder()
    conversation = Conversation(
        network, tokenizer, _config(golden, dialogue), vocoder=recorder, sampler=script
    )
    prefix, suffix = duplex_prompt().ids(tokenizer)
    conversation.open(
        golden.prompt_prefix or prefix, golden.prompt_suffix or suffix, wave(*dialogue.voice)
    )
    prompt_length = conversation.context.length
    codes = golden_codes(dialogue.rows)
    sound = seconds_of(wave(dialogue.units, dialogue.wave_seed))
    rows: list[dict[str, Any]] = []
    fed: list[int] = []
    for unit in range(dialogue.units):
        recorder.given.clear()
        network.words.begin_unit()
        if script is not None and dialogue.script is not None:
            script.begin(dialogue.script[unit])
        if dialogue.speaks:
            network.codes.expect([*codes[unit], network.config.speech.eos])
        outcome = conversation.hear(sound[unit], _shown(dialogue, unit))
        conversation.settle()
        fed += [*outcome.fed, tokenizer.control.unit_end]
        rows.append(_row(outcome, conversation, recorder, script))
        tick()
    yield same(f"{name} prompt_cache_len", prompt_length, dialogue.prompt_length)
    for key in dict.fromkeys(key for row in dialogue.rows for key in row):
        expected = {f"unit {unit}": row[key] for unit, row in enumerate(dialogue.rows)}
        found = {f"unit {unit}": row[key] for unit, row in enumerate(rows) if key in row}
        yield same(f"{name} {key}", found, expected)
    yield same(f"{name} total_ids", fed, dialogue.total_ids)
    yield same(f"{name} previous_ids", conversation.window.previous, dialogue.previous_ids)
    yield from compare_logits(golden, f"{name}.unit_logits", np.stack(network.words.decisions))
    keys = golden.array(f"{name}.K_last8")
    yield close(f"{name}.K_last8", conversation.context.keys(keys.shape[-2]), keys)


def golden_codes(rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    """The codes that the speech decoder wrote in each unit, from what the vocoder was given.

    A list begins with what was left from before: at first, and after the last of a turn, three
    codes of silence, later the three that it had only seen. What was not given in its own unit is
    left out.
    """
    found, waiting = [], LOOK_AHEAD
    for row in rows:
        given = row.get("vocoder") or []
        stream = list(given[0][0]) if given else []
        for codes, _ in given[1:]:
            stream += codes[LOOK_AHEAD:]
        fresh = stream[waiting:]
        found.append(fresh)
        if given and given[-1][1]:
            waiting = LOOK_AHEAD
        else:
            kept = LOOK_AHEAD if given else waiting
            waiting = kept + int(row.get("n_tts_tokens", len(fresh))) - len(fresh)
    return found


def _config(golden: Golden, dialogue: Dialogue) -> DuplexConfig:
    if unknown := sorted(dialogue.options.keys() - OPTIONS.keys()):
        raise InputError(
            f"{golden.prefix}.json: {dialogue.name} has the options {', '.join(unknown)}; known"
            f" are {', '.join(OPTIONS)}"
        )
    options = {OPTIONS[name]: value for name, value in dialogue.options.items()}
    rows = max((int(row["cache"]) for row in dialogue.rows), default=0)
    return DuplexConfig(
        sampler=SamplerConfig(greedy=True, length_penalty=dialogue.length_penalty),
        window=WindowConfig(dialogue.window, **options),
        # Units are read before a window slides: more than is left after any of them.
        kv_capacity=max(8192, 2 * rows),
        forced_listens=dialogue.forced_listens,
        speaks=dialogue.speaks,
        speech_temperature=GREEDY,
        reference_compat=True,
    )


def _shown(dialogue: Dialogue, unit: int) -> list[Shown]:
    if dialogue.pictures is None:
        return []
    width, height, seed = dialogue.pictures
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

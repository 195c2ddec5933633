"""What goes wrong is said in the same words and costs as much, whichever runtime there is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from minicpmo_ros.duplex.config import WindowConfig
from minicpmo_ros.duplex.dialogue import Dialogue, DialogueConfig
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.errors import InputError, KvFullError, MinicpmoError, NumericsError
from minicpmo_ros.model.prompts import PromptText, chat_prompt, reply_turn
from minicpmo_ros.runtime.api import Network
from tests.duplex.talking import PREFIX, SUFFIX, Talk, picture, same, second
from tests.duplex.turns import shown, sound

NOT_A_PICTURE = Shown(9, np.zeros((8, 8, 4), np.uint8))
NAN = np.where(np.arange(16_000) == 7, np.nan, second(99)).astype(np.float32)
# What is done to an open conversation, and what it raises.
WRONG: dict[str, tuple[Callable[[Any], object], type[MinicpmoError]]] = {
    "short": (lambda talk: talk.hear(second(99)[:-1]), InputError),
    "nan": (lambda talk: talk.hear(NAN, [picture(2)]), InputError),
    "whole numbers": (lambda talk: talk.hear(np.zeros(16_000, np.int16)), InputError),
    "nothing": (lambda talk: talk.hear(None), InputError),
    "no picture": (lambda talk: talk.hear(second(99), [picture(2), NOT_A_PICTURE]), InputError),
    "shown": (lambda talk: talk.show([picture(2), NOT_A_PICTURE]), InputError),
    "pictures": (lambda talk: talk.hear(second(99), [picture(k) for k in range(4)]), InputError),
    "full": (lambda talk: talk.hear(second(99), [picture(k) for k in range(3)]), KvFullError),
    "full early": (lambda talk: talk.show([picture(k) for k in range(3)]), KvFullError),
    "prompt": (lambda talk: talk.open([60] * 300, SUFFIX), KvFullError),
    "short voice": (lambda talk: talk.open(PREFIX, SUFFIX, second(0)[:8000]), InputError),
    "nan voice": (lambda talk: talk.open(PREFIX, SUFFIX, np.tile(NAN, 2)), InputError),
    "silent voice": (lambda talk: talk.open(PREFIX, SUFFIX, np.zeros(32_000)), InputError),
}


@pytest.fixture(params=["torch", "onnxruntime"])
def runtime(request, network, ours) -> Network:
    return network if request.param == "torch" else ours


def talking(network: Network, tokenizer: Any) -> Talk:
    """In the middle of a turn, after a unit with a picture."""
    window = WindowConfig("basic", high_tokens=200, low_tokens=150)
    talk = Talk(network, tokenizer, kv_capacity=220, max_pictures=3, window=window, speaks=True)
    talk.unit("listen", shown=[picture(1)])
    talk.unit("speak", "h", "chunk_eos")
    return talk


@pytest.mark.parametrize("wrong", WRONG)
def test_bad_input_is_told_in_the_same_words_and_leaves_no_trace(
    network, ours, tokenizer, wrong
) -> None:
    does, kind = WRONG[wrong]
    told = []
    for one in (ours, network):
        talk, other = talking(one, tokenizer), talking(one, tokenizer)
        before, keys = talk.state(), talk.keys()
        with pytest.raises(kind) as raised:
            does(talk.conversation)
        told.append(str(raised.value))
        assert talk.state() == before
        np.testing.assert_array_equal(talk.keys(), keys)
        go_on(talk, other)
    assert told[0] == told[1]


def go_on(talk: Talk, other: Talk) -> None:
    """Two conversations that are the same go on as the same, bit for bit."""
    for unit, tokens in enumerate((("i", "turn_eos", "chunk_eos"), ("listen",), ("listen",))):
        talk.heard = other.heard = unit
        seen = [picture(30)] if unit == 1 else []
        assert same(*(one.unit(*tokens, shown=seen) for one in (talk, other)))
    assert talk.state() == other.state()
    np.testing.assert_array_equal(talk.keys(), other.keys())


class Ill:
    """A network that gives NaN where it is told to: in pictures, in what it makes of sound and
    remembers of it, or in all that the language model reads.

    where: "look", "ears", "context"; "" while it is well.
    """

    def __init__(self, network: Network) -> None:
        self.network = copy.copy(network)
        self.where = ""
        for name in ("ears", "context"):
            setattr(self.network, name, partial(self._made, name, getattr(network, name)))
        self.network.look = lambda slices: [  # type: ignore[method-assign]
            self._spoilt("look", rows) for rows in network.look(slices)
        ]
        self._rows = network.sound(second(0))[:1]

    def _made(self, name: str, make: Callable[..., Any], *arguments: Any) -> Any:
        made = make(*arguments)
        if name == "ears":
            push = made.mel.push
            made.mel.push = lambda sound: self._spoilt(name, push(sound))
        else:
            read = made.read
            made.read = lambda *parts, at=None: read(*map(self._part, parts), at=at)
        return made

    def _part(self, part: Any) -> Any:
        if self.where == "context" and isinstance(part, list):
            return self._spoilt("context", self._rows[[0] * len(part)])
        return part

    def _spoilt(self, where: str, rows: Any) -> Any:
        return rows * np.nan if self.where == where else rows


@pytest.mark.parametrize("where", ["look", "ears", "context"])
def test_a_network_that_is_ill_for_a_unit_is_well_again(runtime, tokenizer, where) -> None:
    """Nothing that is no number is left in a cache, where it would spoil what comes later."""
    ill = Ill(runtime)
    talk, other = talking(ill.network, tokenizer), talking(runtime, tokenizer)
    ill.where = where
    with pytest.raises(NumericsError, match="NaN"):
        talk.conversation.hear(second(50), [picture(20)])
    ill.where = ""
    other.conversation.ears.reset()  # NaN may have been in it
    go_on(talk, other)


def test_a_unit_whose_end_is_no_number_is_forgotten(runtime, tokenizer) -> None:
    ill = Ill(runtime)
    talk, other = talking(ill.network, tokenizer), talking(runtime, tokenizer)
    for one in (talk, other):
        one.unit("i", "turn_eos", "chunk_eos")
    talk.hear("listen")
    ill.where = "context"
    with pytest.raises(NumericsError, match="where a unit ends"):
        talk.conversation.settle()
    ill.where = ""
    other.conversation.ears.step(second(talk.heard - 1))
    other.conversation.units += 1
    go_on(talk, other)


# -- turn by turn ---------------------------------------------------------------------------


def in_a_turn(network: Network, tokenizer: Any) -> Dialogue:
    config = DialogueConfig(kv_capacity=400, reply_tokens=30, high_tokens=380, low_tokens=200)
    dialogue = Dialogue(network, tokenizer, config, seed=2)
    dialogue.open(chat_prompt("en", PromptText("Be brief."), voice=False))
    dialogue.hear(sound(1), [shown(1)])
    return dialogue


LONG = [shown(key) for key in range(6)]
WRONG_TURN: dict[str, tuple[Callable[[Dialogue], object], type[MinicpmoError]]] = {
    "short": (lambda one: one.hear(sound(0.5)), InputError),
    "nan": (lambda one: one.hear(NAN), InputError),
    "no picture": (lambda one: one.hear(sound(1), [NOT_A_PICTURE]), InputError),
    "long": (lambda one: one.hear(sound(1), LONG), KvFullError),
    "prompt": (lambda one: one.begin([*reply_turn(), "word " * 500]), KvFullError),
    "short voice": (
        lambda one: one.open(chat_prompt("en", None, voice=True), sound(0.5)),
        InputError,
    ),
}


@pytest.mark.parametrize("wrong", WRONG_TURN)
def test_a_turn_goes_on_behind_bad_input(network, ours, tokenizer, wrong) -> None:
    does, kind = WRONG_TURN[wrong]
    told = []
    for one in (ours, network):
        dialogue, other = in_a_turn(one, tokenizer), in_a_turn(one, tokenizer)
        with pytest.raises(kind) as raised:
            does(dialogue)
        told.append(str(raised.value))
        replies = []
        for each in (dialogue, other):
            each.begin(reply_turn())
            replies.append((each.more(30), each.context.length))
        assert replies[0] == replies[1]
    assert told[0] == told[1]


def test_a_reply_that_is_no_number_costs_its_round(runtime, tokenizer) -> None:
    ill = Ill(runtime)
    dialogue, other = in_a_turn(ill.network, tokenizer), in_a_turn(runtime, tokenizer)
    for one in (dialogue, other):
        one.begin(reply_turn())
        one.more(5)
        one.stop()
    before = dialogue.context.length
    ill.where = "ears"
    dialogue.hear(sound(1, 3))
    dialogue.begin(reply_turn())
    with pytest.raises(NumericsError):
        dialogue.more(5)
    ill.where = ""
    assert dialogue.context.length == before
    replies = []
    for one in (dialogue, other):
        one.hear(sound(1, 4), [shown(2)])
        one.begin(reply_turn())
        replies.append(one.more(5))
    assert replies[0].text == replies[1].text

"""A unit that fails leaves the conversation as it was; the next is as if nothing had been."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from minicpmo_ros.duplex.config import WindowConfig
from minicpmo_ros.duplex.pictures import Shown
from minicpmo_ros.errors import InputError, KvFullError, NumericsError
from tests.duplex.talking import PICTURE_ROWS, Talk, Watched, picture, same, second

NOT_A_PICTURE = Shown(9, np.zeros((8, 8, 4), np.uint8))


@pytest.fixture
def talk_with(network, tokenizer):
    return partial(Talk, network, tokenizer)


def speaking(talk: Talk) -> Talk:
    """In the middle of a turn, after a unit with a picture."""
    talk.unit("listen", shown=[picture(1)])
    talk.hear("speak", "h", "chunk_eos")
    return talk


def broken(talk: Talk, kind: str) -> None:
    """A unit that cannot be read."""
    fine = second(99)
    hear = talk.conversation.hear
    if kind == "short":
        hear(fine[:-1])
    elif kind == "long":
        hear(np.concatenate([fine, fine]), [picture(2)])
    elif kind == "nan":
        hear(np.where(np.arange(16_000) == 7, np.nan, fine).astype(np.float32), [picture(2)])
    elif kind == "whole numbers":
        hear((fine * 30_000).astype(np.int16), [picture(2)])
    elif kind == "no picture":
        hear(fine, [picture(2), NOT_A_PICTURE])
    elif kind == "pictures":
        hear(fine, [picture(key) for key in range(4)])
    elif kind == "shown":
        talk.conversation.show([picture(2), NOT_A_PICTURE])
    else:
        hear(None)


@pytest.mark.parametrize(
    "kind",
    ["short", "long", "nan", "whole numbers", "no picture", "pictures", "shown", "nothing"],
)
@pytest.mark.parametrize("early", [False, True])
def test_bad_input_costs_its_unit_and_nothing_else(talk_with, kind, early):
    talk, other = (speaking(talk_with(max_pictures=3)) for _ in range(2))
    for one in (talk, other):
        one.conversation.settle()
    before, keys = talk.state(), talk.keys()
    if early and kind != "shown":
        talk.conversation.show([picture(2)])
    with pytest.raises(InputError):
        broken(talk, kind)
    assert talk.state() == before
    np.testing.assert_array_equal(talk.keys(), keys)
    tokens = ("i", "turn_eos", "chunk_eos")
    assert same(talk.unit(*tokens, shown=[picture(3)]), other.unit(*tokens, shown=[picture(3)]))
    assert talk.state() == other.state()
    np.testing.assert_array_equal(talk.keys(), other.keys())


@pytest.mark.parametrize("window", ["off", "basic", "context"])
def test_a_unit_that_cannot_fit_costs_nothing_else(talk_with, window):
    config = WindowConfig(window, high_tokens=200, low_tokens=150)
    talk, other = (speaking(talk_with(kv_capacity=200, window=config)) for _ in range(2))
    too_many = [picture(key) for key in range(3)]
    for fails in (
        lambda: talk.conversation.hear(second(9), too_many),
        lambda: talk.conversation.show(too_many),
    ):
        talk.conversation.settle()
        before, keys = talk.state(), talk.keys()
        with pytest.raises(KvFullError):
            fails()
        assert talk.state() == before
        np.testing.assert_array_equal(talk.keys(), keys)
    assert same(talk.unit("i", "chunk_eos"), other.unit("i", "chunk_eos"))
    assert talk.state() == other.state()
    np.testing.assert_array_equal(talk.keys(), other.keys())


def test_with_the_window_off_a_conversation_ends_when_the_cache_is_full(talk_with):
    talk = talk_with(kv_capacity=128)
    for _ in range(7):
        talk.unit("listen")
    # A unit may need 13 rows, and as many more as it has steps.
    with pytest.raises(KvFullError, match="let a window slide"):
        talk.unit("listen")
    assert talk.conversation.units == 7


def spoil(context, call: int) -> None:
    """Make the logits of a context NaN once, at the call-th call."""
    original, calls = context.logits, [0]

    def logits(hidden):
        calls[0] += 1
        found = original(hidden)
        return np.full_like(found, np.nan) if calls[0] == call else found

    context.logits = logits


def settle_spoilt(talk: Talk) -> None:
    """Have a unit close in which the last key is NaN; it is refused."""
    context = talk.conversation.context
    read = context.read

    def spoilt(*parts):
        hidden = read(*parts)
        context.cache.k[:, :, context.length - 1] = np.nan
        return hidden

    context.read = spoilt
    with pytest.raises(NumericsError, match="where a unit ends"):
        talk.conversation.settle()
    context.read = read


@pytest.mark.parametrize(
    "call, word",
    [(1, "i"), (3, "i"), (2, "turn_eos")],
    ids=["before the decision", "behind two words", "behind the end of a turn"],
)
@pytest.mark.parametrize("early", [False, True])
def test_numbers_gone_wrong_cost_their_unit_and_what_was_heard(talk_with, call, word, early):
    """The audio encoder begins anew, because its caches may be what is wrong."""
    talk, other = speaking(talk_with()), speaking(talk_with())
    for one in (talk, other):
        one.conversation.settle()
    before, keys = talk.state(), talk.keys()
    spoil(talk.conversation.context, call)
    if early:
        talk.conversation.show([picture(2)])
    with pytest.raises(NumericsError):
        talk.hear(word, "i", "i", shown=[picture(2)])
    assert talk.state() == before
    np.testing.assert_array_equal(talk.keys(), keys)
    other.conversation.ears.reset()
    assert same(talk.unit("turn_eos", "listen"), other.unit("turn_eos", "listen"))
    assert same(talk.unit("listen"), other.unit("listen"))
    assert talk.state() == other.state()
    np.testing.assert_array_equal(talk.keys(), other.keys())


def test_numbers_gone_wrong_where_a_unit_ends_cost_that_unit(talk_with):
    """They would be read by all that follow."""
    talk, other = talk_with(), talk_with()
    for one in (talk, other):
        one.unit("listen")
    before, keys = talk.state(), talk.keys()
    talk.hear("listen", shown=[picture(1)])
    settle_spoilt(talk)
    assert talk.state() == (*before[:-1], 2)
    np.testing.assert_array_equal(talk.keys(), keys)
    # The ears have heard it.
    other.conversation.ears.step(second(1))
    other.heard = 2
    assert same(talk.unit("listen"), other.unit("listen"))


@pytest.mark.parametrize(
    ("tokens", "is_open"),
    [(["speak", "h", "chunk_eos"], False), (["i", "turn_eos", "chunk_eos"], True)],
)
def test_a_turn_is_as_it_was_before_a_unit_that_is_forgotten_at_its_end(talk_with, tokens, is_open):
    """Else the model could not listen in a turn that it does not remember."""
    talk = speaking(talk_with()) if is_open else talk_with()
    talk.conversation.settle()
    talk.hear(*tokens)
    assert talk.conversation.turn_open is not is_open
    settle_spoilt(talk)
    assert talk.conversation.turn_open is is_open
    said = talk.unit("i", "turn_eos", "chunk_eos") if is_open else talk.unit("listen")
    assert said.listens is not is_open


def test_an_interruption_outlives_a_unit_that_fails(talk_with):
    talk = speaking(talk_with())
    talk.conversation.interrupt()
    for fails in ("short", "nothing"):
        with pytest.raises(InputError):
            broken(talk, fails)
    context = talk.conversation.context
    spoil(context, 1)
    with pytest.raises(NumericsError):
        talk.hear()
    read = context.read

    def fails_at_the_end_of_the_turn(*parts):
        if parts == (list(talk.ids("turn_eos")),):
            raise RuntimeError("the device is gone")
        return read(*parts)

    context.read = fails_at_the_end_of_the_turn
    with pytest.raises(RuntimeError):
        talk.hear()
    context.read = read
    outcome = talk.unit()
    assert outcome.listens
    assert outcome.fed == talk.ids("turn_eos", "listen")


def test_a_forced_unit_that_fails_is_made_up_for(talk_with):
    talk = talk_with(forced_listens=1)
    with pytest.raises(InputError):
        broken(talk, "short")
    assert talk.unit().listens


@pytest.mark.parametrize("kind, pictures", [("short", 0), ("nan", 1)])
def test_the_reference_has_read_the_unit_when_its_sound_turns_out_bad(talk_with, kind, pictures):
    talk = talk_with(reference_compat=True)
    talk.unit("listen")
    rows = talk.rows
    with pytest.raises(InputError):
        broken(talk, kind)
    assert talk.rows == rows + 1 + pictures * PICTURE_ROWS
    # It belongs to no unit.
    talk.unit("listen")
    assert [unit.rows for unit in talk.conversation.window.units] == [13, 13]


def test_failed_units_are_looked_at_again(network, tokenizer):
    """Embeddings of a unit that failed may be what was wrong with it."""
    watched = Watched(network)
    talk = Talk(watched.network, tokenizer)
    for _ in range(2):
        with pytest.raises(InputError):
            talk.conversation.hear(second(0)[:-1], [picture(1)])
    assert watched.looks == [1, 1]

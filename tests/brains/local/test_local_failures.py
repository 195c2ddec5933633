"""What goes wrong in the network costs its unit; when too much does, the reserve decides until the
network is well again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from minicpmo_ros.brains.api import Brain, ChatRequest, SessionSetup, UnitResult
from minicpmo_ros.brains.fallback import FallbackBrain
from minicpmo_ros.errors import KvFullError, NumericsError
from minicpmo_ros.messages import Action
from tests.brains.local.robot import NOBODY, Tones, picture, second, somebody


class Reserve(Brain):
    name = "reserve"

    def open(self, setup):
        pass

    def unit(self, unit, around):
        return UnitResult(Action.LISTEN, reason="in reserve")

    def close(self):
        pass


@contextmanager
def ill(prompter, stage: str = "llm") -> Iterator[None]:
    """Weights of a stage are NaN."""
    import torch

    parameter = next(p for p in prompter.network.stages[stage].parameters() if p.ndim == 1)
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.fill_(math.nan)
    try:
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(kept)


@pytest.mark.parametrize("stage", ["llm", "audio", "vision"])
def test_in_duplex_nan_costs_the_unit_and_leaves_no_trace(make, prompter, stage):
    prompter.rest = None

    def conversation(*, falls_ill: bool):
        brain = make()
        brain.open(SessionSetup())
        if falls_ill:
            with ill(prompter, stage), pytest.raises(NumericsError, match="NaN"):
                brain.unit(second(1, picture(1.5)), NOBODY)
        results = [brain.unit(second(k, picture(k + 0.5)), NOBODY) for k in (2, 3, 4)]
        return [(r.text, r.p_listen, r.kv_length) for r in results]

    assert conversation(falls_ill=True) == conversation(falls_ill=False)


def test_nan_in_the_end_of_a_unit_costs_that_unit_alone(make, prompter):
    brain = make()
    brain.open(SessionSetup())
    length = brain.unit(second(0), NOBODY).kv_length
    with ill(prompter), pytest.raises(NumericsError, match="where a unit ends"):
        brain.settle()
    brain.settle()
    result = brain.unit(second(1), NOBODY)
    assert result.kv_length == length
    assert math.isfinite(result.p_listen)


@pytest.mark.parametrize("when", ["heard", "replied"])
def test_in_streaming_nan_costs_the_round_and_leaves_no_trace(make, prompter, when):
    prompter.rest = None

    def conversation(*, falls_ill: bool):
        brain = make()
        brain.open(SessionSetup(mode="streaming"))
        if falls_ill:
            if when == "heard":
                with ill(prompter, "audio"):
                    brain.unit(second(0), somebody(0, None))
                with pytest.raises(NumericsError):
                    brain.unit(second(1), somebody(0, 0.9))
            else:
                brain.unit(second(0), somebody(0, None))
                with ill(prompter), pytest.raises(NumericsError):
                    brain.unit(second(1), somebody(0, 0.9))
        assert brain.unit(second(2), NOBODY).reason == "nobody speaks"
        results = [brain.unit(second(k), somebody(3, 3.2)) for k in (3, 4)]
        return [(r.action, r.text, r.kv_length) for r in results]

    well = conversation(falls_ill=False)
    assert any(text for _, text, _ in well)
    assert conversation(falls_ill=True) == well


def test_a_question_that_got_nan_is_answered_when_it_is_asked_again(make, prompter):
    brain = make()
    brain.open(SessionSetup(mode="chat"))
    with ill(prompter), pytest.raises(NumericsError):
        list(brain.chat(ChatRequest("Who?")))
    prompter.script.clear()
    prompter.replies("Me.")
    assert "".join(brain.chat(ChatRequest("Who?"))) == "Me."


@pytest.mark.parametrize("mode", ["duplex", "streaming"])
def test_the_reserve_decides_after_some_failures_until_the_weights_are_well(make, prompter, mode):
    brain = FallbackBrain(make(), Reserve(), failures=3, retry_units=4)
    brain.open(SessionSetup(mode=mode))
    decided: list[str] = []

    def unit(k: int) -> None:
        try:
            result = brain.unit(second(k), somebody(k, k + 0.1))
            decided.append(brain.name)
            assert math.isfinite(result.p_listen) or brain.name == "reserve" or mode != "duplex"
            brain.settle()
        except NumericsError:
            decided.append("failed")

    prompter.rest = None if mode == "duplex" else prompter.tokenizer.control.tts_eos
    unit(0)
    with ill(prompter):
        for k in range(1, 9):
            unit(k)
        assert "NaN" in brain.trouble
    for k in range(9, 16):
        unit(k)
    # Tried again in units 7, in vain, and 11.
    assert decided == ["local", "failed", "failed", *["reserve"] * 8, *["local"] * 5]
    assert brain.trouble == ""


def test_without_a_window_a_full_cache_fails_units_with_what_would_help(make):
    brain = make(window="off", kv_capacity=128)
    brain.open(SessionSetup())
    units = 0
    while brain._mode.conversation.context.length < 128 - 13 - 22:
        brain.unit(second(units), NOBODY)
        units += 1
    brain.settle()
    length = brain._mode.conversation.context.length
    for k in (units, units + 1):
        with pytest.raises(KvFullError, match=r"holds 128 tokens.*let a window slide"):
            brain.unit(second(k), NOBODY)
    assert brain._mode.conversation.context.length == length
    brain.open(SessionSetup())
    assert brain.unit(second(22), NOBODY).action is Action.LISTEN


@pytest.mark.parametrize("mode", ["duplex", "streaming"])
def test_with_a_window_it_goes_on_for_as_long_as_one_likes(make, prompter, mode):
    prompter.rest = None
    brain = make(Tones(), kv_capacity=256, window_high_tokens=200, window_low_tokens=100)
    brain.open(SessionSetup(mode=mode))
    lengths = [
        brain.unit(second(k, picture(k + 0.5)), somebody(k, k + 0.1)).kv_length for k in range(60)
    ]
    assert max(lengths) <= 256
    assert sum(b < a for a, b in itertools.pairwise(lengths)) > 5

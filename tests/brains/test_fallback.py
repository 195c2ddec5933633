"""A brain that fails, and the reserve that decides until it is back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.brains.api import (
    Brain,
    Capabilities,
    ChatRequest,
    SessionSetup,
    Surroundings,
    UnitResult,
    VoiceNotes,
)
from minicpmo_ros.brains.fallback import FallbackBrain
from minicpmo_ros.brains.reflex import ReflexBrain, ReflexConfig
from minicpmo_ros.errors import BrainError, ConfigError, NumericsError
from minicpmo_ros.messages import NS_PER_S, Action, Decision, Picture, SessionState, State
from minicpmo_ros.timeline.unit import Unit
from tests.brains.test_session import Stage, talk

NAN = NumericsError("NaN in the logits")


class Fake(Brain):
    """Fails when it is told to, and writes down what it is asked."""

    def __init__(self, name: str, **can) -> None:
        self.name = name
        self.capabilities = Capabilities(**can)
        self.failing: Exception | None = None
        self.failing_open: Exception | None = None
        self.failing_settle: Exception | None = None
        self.asked: list = []

    def open(self, setup: SessionSetup) -> None:
        self.asked.append(setup)
        self.progress("weights", 1.0)
        if self.failing_open:
            raise self.failing_open

    def unit(self, unit: Unit, around: Surroundings) -> UnitResult:
        self.asked.append(unit.index)
        if self.failing:
            raise self.failing
        return UnitResult(Action.LISTEN, reason="heard nothing")

    def picture(self, picture: Picture) -> None:
        self.asked.append("picture")

    def settle(self) -> None:
        if self.failing_settle:
            raise self.failing_settle
        self.asked.append("settle")

    def interrupt(self, heard: str) -> None:
        self.asked.append(f"interrupt {heard}")

    def remember(self, heard: str, unit: int) -> None:
        self.asked.append(f"remember {heard} of {unit}")

    def chat(self, request: ChatRequest):
        if not self.capabilities.chats:
            return super().chat(request)
        return iter([self.name, request.text])

    def close(self) -> None:
        self.asked.append("close")

    @property
    def units(self) -> list[int]:
        return [entry for entry in self.asked if isinstance(entry, int)]

    @property
    def opened(self) -> list[SessionSetup]:
        return [entry for entry in self.asked if isinstance(entry, SessionSetup)]


class Pair:
    """A primary and a reserve, fed with units."""

    def __init__(self, failures: int = 3, retry_units: int = 10, **can) -> None:
        self.primary = Fake("local", modes=("duplex", "chat"), languages=("en", "zh"), **can)
        self.reserve = Fake("reflex")
        self.brain = FallbackBrain(self.primary, self.reserve, failures, retry_units)
        self._next = 0

    def open(self, **setup) -> Pair:
        self.brain.open(SessionSetup(**setup))
        return self

    def unit(self) -> tuple[str, str]:
        """(who decided, why) of the next unit; "raised" where it raised on."""
        start_ns = self._next * NS_PER_S
        samples = np.zeros(16_000, np.int16)
        unit = Unit(self._next, start_ns, start_ns + NS_PER_S, samples, 16_000)
        self._next += 1
        try:
            result = self.brain.unit(unit, Surroundings())
        except Exception as error:
            return "raised", str(error)
        return self.brain.name, result.reason

    def units(self, count: int) -> list[str]:
        return [self.unit()[0] for _ in range(count)]

    def fall(self) -> Pair:
        """Let the primary fail until the reserve decides."""
        self.primary.failing = NAN
        while self.unit()[0] != "reflex":
            pass
        return self


def test_the_reserve_decides_from_the_third_failed_unit_in_a_row_and_says_why():
    pair = Pair().open()
    assert pair.unit() == ("local", "heard nothing")
    pair.primary.failing = NAN
    assert [pair.unit() for _ in range(2)] == [("raised", "NaN in the logits")] * 2
    assert pair.brain.trouble == ""
    why = "local failed 3 times (NumericsError: NaN in the logits)"
    assert pair.unit() == ("reflex", f"{why}; reflex: heard nothing")
    assert pair.brain.trouble == f"{why}: reflex decides instead"
    assert pair.reserve.units == [3]
    assert pair.units(3) == ["reflex"] * 3
    assert pair.primary.units == [0, 1, 2, 3]


def test_failures_that_are_not_in_a_row_do_not_count():
    pair = Pair(failures=2).open()
    for failing in (NAN, None) * 4:
        pair.primary.failing = failing
        assert pair.unit()[0] == ("raised" if failing else "local")
    assert pair.reserve.asked == []


def test_the_primary_is_opened_anew_and_tried_every_ten_units_and_costs_none():
    pair = Pair().open(language="zh").fall()  # it fell in unit 2
    assert pair.units(25) == ["reflex"] * 25
    assert pair.primary.units == [0, 1, 2, 12, 22]
    assert pair.primary.opened == [SessionSetup(language="zh")] * 3
    assert pair.reserve.units == list(range(2, 28))
    assert "local failed 5 times (NumericsError" in pair.brain.trouble


def test_a_primary_that_is_well_again_is_back_and_says_so():
    pair = Pair(retry_units=4).open().fall()
    pair.primary.failing = None
    assert pair.units(3) == ["reflex"] * 3
    why = "local failed 3 times (NumericsError: NaN in the logits)"
    assert pair.unit() == ("local", f"local is back ({why}); heard nothing")
    assert pair.brain.trouble == ""
    assert pair.unit() == ("local", "heard nothing")
    pair.primary.failing = NAN
    assert pair.units(3) == ["raised", "raised", "reflex"]
    assert "failed 3 times" in pair.brain.trouble


def test_a_primary_that_cannot_be_opened_anew_costs_no_unit():
    pair = Pair(retry_units=2).open().fall()
    pair.primary.failing = None
    pair.primary.failing_open = BrainError("out of memory")
    assert pair.units(4) == ["reflex"] * 4
    assert "local failed 5 times (BrainError: out of memory)" in pair.brain.trouble
    pair.primary.failing_open = None
    assert pair.units(2) == ["reflex", "local"]


@given(
    st.lists(st.booleans(), max_size=60),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_who_decides_depends_on_which_units_fail_and_on_nothing_else(fails, failures, retry_units):
    """Against a model of the rule in a few lines."""
    pair = Pair(failures, retry_units).open()
    in_a_row, since = 0, None
    for fail in fails:
        pair.primary.failing = NAN if fail else None
        if since is not None and since < retry_units:
            expected = "reflex"
            since += 1
        elif since is not None:
            expected = "reflex" if fail else "local"
            since, in_a_row = (1, in_a_row) if fail else (None, 0)
        elif not fail:
            expected, in_a_row = "local", 0
        else:
            in_a_row += 1
            expected = "reflex" if in_a_row == failures else "raised"
            since = 1 if in_a_row == failures else None
        decided, reason = pair.unit()
        assert decided == expected
        assert bool(pair.brain.trouble) == (expected == "reflex")
        assert reason


def test_a_primary_that_fails_as_it_settles_fails_too():
    pair = Pair(failures=2).open()
    pair.primary.failing_settle = NAN
    for _ in range(2):
        assert pair.unit()[0] == "local"
        with pytest.raises(NumericsError):
            pair.brain.settle()
    assert pair.unit()[0] == "reflex"
    pair.brain.settle()
    assert pair.reserve.asked[-1] == "settle"


def test_a_unit_that_settles_ends_the_row_of_failures():
    pair = Pair(failures=2).open()
    for _ in range(4):
        pair.primary.failing_settle = NAN
        pair.unit()
        with pytest.raises(NumericsError):
            pair.brain.settle()
        pair.primary.failing_settle = None
        pair.unit()
        pair.brain.settle()
    assert pair.brain.name == "local"


def test_a_first_session_that_does_not_open_raises():
    pair = Pair()
    pair.primary.failing_open = BrainError("the checkpoint is damaged")
    for _ in range(2):
        with pytest.raises(BrainError, match="the checkpoint is damaged"):
            pair.open()
    pair.primary.failing_open = None
    pair.open()
    pair.brain.close()
    pair.primary.failing_open = BrainError("gone")
    with pytest.raises(BrainError, match="gone"):
        pair.open()


def test_a_later_session_that_does_not_open_falls_to_the_reserve_until_one_does():
    pair = Pair(retry_units=2).open()
    pair.primary.failing_open = BrainError("no such prompt")
    pair.open(prompt="/nowhere")
    assert "local failed once (BrainError: no such prompt)" in pair.brain.trouble
    assert pair.units(3) == ["reflex"] * 3
    pair.open(prompt="/elsewhere")
    assert pair.reserve.opened[-1] == SessionSetup()
    opened = len(pair.primary.opened)
    assert pair.units(2) == ["reflex"] * 2
    assert len(pair.primary.opened) == opened
    pair.primary.failing_open = None
    pair.open()
    assert pair.unit() == ("local", "heard nothing")
    assert pair.brain.trouble == ""


def test_the_reserve_gets_of_the_session_what_it_can_do():
    pair = Pair(takes_prompt=True).open(mode="chat", language="zh", prompt="be kind", seed=7).fall()
    assert pair.reserve.opened == [SessionSetup("duplex", "", "en", 7)]


def test_a_reserve_that_does_not_open_leaves_the_robot_with_the_primary():
    pair = Pair(failures=2).open()
    pair.reserve.failing_open = BrainError("no voice")
    pair.primary.failing = NAN
    assert pair.unit()[1] == "NaN in the logits"
    _, why = pair.unit()
    assert why == (
        "local failed 2 times (NumericsError: NaN in the logits); "
        "reflex does not open (BrainError: no voice)"
    )
    pair.primary.failing = None
    assert pair.unit() == ("local", "heard nothing")


def test_whoever_decides_sees_pictures_and_hears_of_interruptions():
    pair = Pair().open()

    def tell() -> None:
        pair.brain.picture(Picture.of(1, np.zeros((2, 2, 3), np.uint8)))
        pair.brain.interrupt("one two")
        pair.brain.remember("one", 7)
        pair.brain.settle()

    tell()
    told = ["picture", "interrupt one two", "remember one of 7", "settle"]
    assert pair.primary.asked[1:] == told
    pair.fall()
    before = len(pair.primary.asked)
    tell()
    assert pair.reserve.asked[-4:] == told
    assert pair.primary.asked[before:] == []


def test_what_there_is_to_say_of_the_primarys_voice_is_told_when_it_opens():
    pair = Pair()
    pair.primary.voice_notes = VoiceNotes("anna", ("it is clipped",))
    assert pair.open().brain.voice_notes == VoiceNotes("anna", ("it is clipped",))


def test_the_capabilities_are_the_primarys_whoever_decides():
    pair = Pair(chats=True).open().fall()
    assert pair.brain.capabilities == pair.primary.capabilities
    question = ChatRequest("why?")
    with pytest.raises(BrainError, match="reflex decides instead, which cannot chat; ask again"):
        pair.brain.chat(question)
    pair.reserve.capabilities = Capabilities(chats=True)
    assert list(pair.brain.chat(question)) == ["reflex", "why?"]


def test_the_primary_answers_questions_while_it_decides():
    assert list(Pair(chats=True).open().brain.chat(ChatRequest("why?"))) == ["local", "why?"]


def test_progress_of_the_primary_comes_through_under_its_name():
    pair, told = Pair(retry_units=1), []
    pair.brain.progress = lambda what, share: told.append((pair.brain.name, what, share))
    pair.open().fall()
    assert told == [("local", "weights", 1.0)]
    assert pair.unit()[0] == "reflex"
    assert told == [("local", "weights", 1.0)] * 2


def test_both_are_closed_even_when_one_cannot_be():
    pair = Pair().open()
    pair.primary.close = lambda: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        pair.brain.close()
    assert pair.reserve.asked == ["close"]


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"retry_units": 0}])
def test_counts_below_one_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}=0: must be 1 or more"):
        FallbackBrain(Fake("local"), Fake("reflex"), **wrong)


def test_a_long_error_is_told_by_its_first_line():
    pair = Pair(failures=1).open()
    pair.primary.failing = RuntimeError("CUDA error: out of memory\nfor debugging consider ...")
    assert pair.unit()[1].startswith("local failed once (RuntimeError: CUDA error: out of memory);")


# -- in a session -------------------------------------------------------------------------


def reflex() -> ReflexBrain:
    return ReflexBrain(ReflexConfig(), None)


def test_decisions_and_state_of_a_session_say_who_decides_and_why():
    primary = Fake("local")
    stage = Stage(brain=FallbackBrain(primary, reflex(), retry_units=3))
    stage.hear(1.0)
    primary.failing = NAN
    stage.hear(5.0)
    assert stage.session.fault == ""
    assert "local failed 3 times" in stage.session.trouble
    primary.failing = None
    stage.hear(2.0)
    assert stage.session.trouble == ""
    who = [d.brain for d in stage.of(Decision)]
    assert who == ["local"] * 3 + ["reflex"] * 3 + ["local"] * 2
    states = [(s.state, s.brain, s.detail) for s in stage.of(SessionState)][1:]
    why = "local failed 3 times (NumericsError: NaN in the logits): reflex decides instead"
    assert states == [
        (State.FAULT, "local", "NumericsError: NaN in the logits"),
        (State.LISTENING, "reflex", why),
        (State.LISTENING, "local", "the brain 'local' answers again"),
    ]
    assert [text for _, text in stage.problems if "decides instead" in text] == [why]


def test_a_turn_of_the_primary_ends_when_the_reserve_takes_over():
    class Talker(Fake):
        def unit(self, unit, around):
            super().unit(unit, around)
            return talk(1.0, end=False)

    primary = Talker("local")
    stage = Stage(brain=FallbackBrain(primary, reflex(), failures=1))
    stage.hear(1.0)
    assert stage.session._turns.open_turn is not None
    primary.failing = NAN
    stage.hear(1.0)
    assert stage.session.fault == ""
    assert stage.session._turns.open_turn is None

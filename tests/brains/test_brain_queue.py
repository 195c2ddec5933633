"""What a brain is asked, and when: units, early looks at pictures, opening that takes long."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.brains.api import Brain, SessionSetup, Surroundings, UnitResult, VoiceNotes
from minicpmo_ros.brains.brain_queue import BrainQueue, Decided
from minicpmo_ros.brains.work import InlineWorker, ThreadWorker
from minicpmo_ros.errors import BrainError
from minicpmo_ros.messages import NS_PER_S, Action, Picture
from minicpmo_ros.timeline.unit import Unit
from tests.brains.held import HeldWorker

PATIENCE_S = 20.0


class Diary(Brain):
    """Writes down what it is asked, and can be kept waiting with a unit."""

    name = "diary"

    def __init__(self) -> None:
        self.asked: list = []
        self.loads: list[tuple[str, float] | Exception] = []
        self.began = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def open(self, setup: SessionSetup) -> None:
        for step in self.loads:
            self.go_on.wait(PATIENCE_S)
            if isinstance(step, Exception):
                raise step
            self.progress(*step)
            self.began.set()
        self.asked.append("open")

    def unit(self, unit: Unit, around: Surroundings) -> UnitResult:
        self.began.set()
        self.go_on.wait(PATIENCE_S)
        self.asked.append(f"unit {unit.index}")
        return UnitResult(Action.LISTEN)

    def picture(self, picture: Picture) -> None:
        self.asked.append(picture.stamp_ns / NS_PER_S)

    def settle(self) -> None:
        self.asked.append("settle")

    def close(self) -> None:
        self.asked.append("close")


def unit(index: int) -> Unit:
    start_ns = index * NS_PER_S
    return Unit(index, start_ns, start_ns + NS_PER_S, np.zeros(16_000, np.int16), 16_000)


def picture(at_s: float) -> Picture:
    return Picture.of(round(at_s * NS_PER_S), np.zeros((2, 2, 3), np.uint8))


class Desk:
    """A brain with a queue, and what came of its units."""

    def __init__(self, worker=None) -> None:
        self.brain = Diary()
        self.decided: list[Decided] = []
        self.problems: list[str] = []
        self.queue = BrainQueue(
            self.brain,
            worker or InlineWorker(),
            lambda kind, text: self.problems.append(text),
        )

    def unit(self, index: int) -> None:
        self.queue.unit(unit(index), Surroundings(), self.decided.append)


@pytest.fixture
def busy():
    """A brain on a thread of its own that is at work on unit 0, and stays so until it may go on."""
    desk = Desk(ThreadWorker("a brain", lambda error: None))
    desk.brain.go_on.clear()
    desk.unit(0)
    assert desk.brain.began.wait(PATIENCE_S)
    yield desk
    desk.brain.go_on.set()
    desk.queue.close(PATIENCE_S)


def finish(desk: Desk) -> list:
    desk.brain.go_on.set()
    desk.queue.close(PATIENCE_S)
    return [entry for entry in desk.brain.asked if entry not in ("settle", "close")]


def test_of_many_pictures_that_come_while_the_brain_is_busy_it_looks_at_the_newest(busy):
    for frame in range(300):
        busy.queue.picture(picture(1.0 + frame / 1000))
    assert busy.queue.units == 1
    assert finish(busy) == ["unit 0", 1.299]


def test_what_a_unit_brings_itself_is_not_looked_at_before_it(busy):
    busy.queue.picture(picture(1.9))
    busy.unit(1)
    assert finish(busy) == ["unit 0", "unit 1"]


@pytest.mark.parametrize("later", [[], [2.2]])
def test_a_picture_of_the_next_unit_waits_until_this_one_is_decided(busy, later):
    busy.queue.picture(picture(2.1))
    busy.unit(1)
    for at_s in later:
        busy.queue.picture(picture(at_s))
    assert finish(busy) == ["unit 0", "unit 1", *(later or [2.1])]


def test_a_brain_with_time_looks_at_every_picture_when_it_comes():
    desk = Desk()
    for at_s in (0.1, 0.5, 1.05):
        desk.queue.picture(picture(at_s))
    desk.unit(0)
    desk.queue.picture(picture(1.1))
    assert desk.brain.asked == [0.1, 0.5, 1.05, "unit 0", "settle", 1.1]


def test_pictures_from_many_threads_are_all_looked_at_or_overtaken_by_newer_ones():
    desk = Desk(ThreadWorker("a brain", lambda error: None))
    lock, clock = threading.Lock(), iter(range(1, 1001))

    def camera() -> None:
        for _ in range(250):
            with lock:  # as the session has it
                desk.queue.picture(picture(next(clock)))

    cameras = [threading.Thread(target=camera) for _ in range(4)]
    for thread in cameras:
        thread.start()
    for thread in cameras:
        thread.join()
    looks = finish(desk)
    assert looks == sorted(set(looks))
    assert looks[-1] == 1000


@given(st.lists(st.sampled_from(["picture", "unit", "work"]), max_size=40))
def test_however_pictures_units_and_work_follow_each_other_no_look_is_stale_or_ahead(steps):
    worker = HeldWorker()
    worker.held = True
    desk = Desk(worker)
    now_s, units = 0.0, 0
    came: list[float] = []
    for step in steps:
        if step == "picture":
            now_s += 0.6
            came.append(now_s)
            desk.queue.picture(picture(now_s))
        elif step == "unit":
            now_s = max(now_s, units + 1.0)
            desk.unit(units)
            units += 1
        elif worker.jobs:
            done = len(desk.brain.asked)
            worker.run(1)
            for look in desk.brain.asked[done:]:
                if isinstance(look, float):
                    # the newest, and of a unit that is not yet decided and does not wait
                    assert look == pytest.approx(came[-1])
                    assert look >= units
    worker.run(len(worker.jobs))
    asked = [entry for entry in desk.brain.asked if entry != "settle"]
    decided = [entry for entry in asked if isinstance(entry, str)]
    assert decided == [f"unit {index}" for index in range(units)]
    looks = [entry for entry in asked if isinstance(entry, float)]
    assert looks == sorted(set(looks))
    if came and came[-1] >= units:
        assert looks[-1] == pytest.approx(came[-1])


def test_a_brain_that_does_not_look_early_is_not_bothered():
    class Blind(Brain):
        def open(self, setup): ...

        def unit(self, unit, around): ...

        def close(self): ...

    worker = HeldWorker()
    worker.held = True
    queue = BrainQueue(Blind(), worker, lambda kind, text: None)
    queue.picture(picture(0.5))
    assert not queue.busy


def test_who_waits_for_a_slow_brain_is_called_again_and_again_and_sees_how_far_it_is():
    desk = Desk(ThreadWorker("a brain", lambda error: None))
    brain, seen = desk.brain, []
    brain.loads = [("vision", 0.5)]
    brain.go_on.clear()

    def meanwhile() -> None:
        seen.append(str(desk.queue.loading))
        if len(seen) == 3:
            brain.go_on.set()

    desk.queue.open(SessionSetup(), meanwhile, 0.01)
    assert seen[:3] == ["loading diary"] * 3
    assert desk.queue.loading is None
    assert finish(desk) == ["open"]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "vision 0 %"),
        (0.4, "vision 40 %"),
        (1.0, "vision 100 %"),
        (7.0, "vision 100 %"),
        (-1.0, "vision 0 %"),
        (float("nan"), "vision 0 %"),
    ],
)
def test_progress_is_said_in_percent_whatever_a_brain_makes_of_it(share, text):
    desk = Desk(ThreadWorker("a brain", lambda error: None))
    seen: list[str] = []
    desk.brain.loads = [("vision", share)] * 2

    def meanwhile() -> None:
        if desk.brain.began.is_set():
            seen.append(str(desk.queue.loading))
            desk.brain.go_on.set()

    class Halting(threading.Event):
        """Lets the first step through, and the second one when the test has looked."""

        def wait(self, timeout=None):
            return not desk.brain.began.is_set() or super().wait(timeout)

    desk.brain.go_on = Halting()
    desk.queue.open(SessionSetup(), meanwhile, 0.01)
    desk.queue.close(PATIENCE_S)
    assert seen[0] == f"loading diary: {text}"


@pytest.mark.parametrize("thread", [True, False])
def test_a_brain_that_does_not_open_raises_where_it_is_waited_for(thread):
    desk = Desk(ThreadWorker("a brain", lambda error: None) if thread else None)
    desk.brain.loads = [("vision", 0.5), BrainError("the checkpoint is damaged")]
    with pytest.raises(BrainError, match="the checkpoint is damaged"):
        desk.queue.open(SessionSetup())
    assert desk.queue.loading is None
    assert desk.problems == []
    desk.queue.close(PATIENCE_S)


def test_a_session_that_cannot_be_opened_again_is_reported_and_the_queue_goes_on():
    desk = Desk()
    desk.brain.loads = [("vision", 0.5), BrainError("no such prompt")]
    desk.queue.reopen(SessionSetup())
    assert desk.problems == ["BrainError: no such prompt"]
    assert desk.queue.loading is None
    desk.unit(0)
    assert [made.fault for made in desk.decided] == [""]


def test_a_look_that_fails_is_reported_and_the_next_one_is_taken():
    desk = Desk()
    desk.brain.picture = lambda picture: 1 / 0  # type: ignore[method-assign]
    desk.queue.picture(picture(0.1))
    del desk.brain.picture
    desk.queue.picture(picture(0.2))
    assert desk.problems == ["ZeroDivisionError: division by zero"]
    assert desk.queue.failures == 1
    assert desk.brain.asked == [0.2]


def test_what_there_is_to_say_of_a_voice_is_said_once_each_time_that_it_is_chosen():
    desk = Desk()
    told: list[tuple[str, str]] = []
    desk.queue = BrainQueue(desk.brain, InlineWorker(), lambda *problem: told.append(problem))
    anna = ("voice anna", "it is clipped; it is cut")
    bob = ("voice bob", "it is mixed down")
    for name, notes, now_told in (
        ("anna", ("it is clipped", "it is cut"), [anna]),
        ("anna", ("it is clipped", "it is cut"), []),  # a session anew
        ("bob", ("it is mixed down",), [bob]),
        ("carl", (), []),
        ("anna", ("it is clipped", "it is cut"), [anna]),
    ):
        told.clear()
        desk.brain.voice_notes = VoiceNotes(name, notes)
        desk.queue.open(SessionSetup(voice=name))
        desk.queue.unit(unit(0), Surroundings(), desk.decided.append)
        assert told == now_told
    assert desk.queue.failures == 0


def test_of_a_voice_that_a_brain_comes_back_with_in_a_unit_it_is_said_then():
    desk = Desk()
    desk.queue.open(SessionSetup())
    desk.brain.voice_notes = VoiceNotes("anna", ("it is clipped",))
    for index in range(2):
        desk.unit(index)
    assert desk.problems == ["it is clipped"]

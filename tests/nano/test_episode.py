"""Episodes: whoever directs them, the robot does what is right, and in time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from minicpmo_ros.nano.answers import SEEING, Slots
from minicpmo_ros.nano.chatter import chatter
from minicpmo_ros.nano.episode import HEARD_OUT_S, Director, Episode
from minicpmo_ros.nano.lines import Line
from minicpmo_ros.nano.stage_set import hastened, no_camera, random_set
from minicpmo_ros.nano.wordings import INTENTS

SILENCE: NDArray[np.float32] = np.zeros(16_000, np.float32)


class Mute:
    """Lines without a sound, of a length that their words would have."""

    held_out = False

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def line(self, text: str) -> Line:
        return Line(text, np.zeros(round(16_000 * (0.2 + 0.25 * len(text.split()))), np.float32))

    def ask(self, intent: str, slots: Slots) -> Line:
        return self.line(slots.fill(str(self.rng.choice(np.array(INTENTS[intent].learned)))))

    def chatter(self) -> Line:
        return self.line(chatter(self.rng))

    def foreign(self) -> Line:
        return self.line("wie spät ist es")

    def backchannel(self) -> Line:
        return self.line("mhm")

    tic = noise = backchannel


def episodes(count: int = 60, units: int = 24) -> list[Episode]:
    found = []
    for number in range(count):
        rng = np.random.default_rng([5, number])
        stage = random_set(rng, units) if number % 3 else no_camera()
        found.append(Director(rng, Mute(rng), stage, units).direct())  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def directed() -> list[Episode]:
    return episodes()


def test_an_answer_comes_with_the_first_unit_that_heard_the_user_out(directed) -> None:
    checked = 0
    for episode in directed:
        for one in episode.answered:
            if one.voiced is None or one.voiced.kind != "turn":
                continue
            silent_s = one.unit + 1 - one.voiced.ends_s
            assert HEARD_OUT_S <= silent_s < 1 + HEARD_OUT_S
            checked += 1
    assert checked > 200


def test_what_is_said_is_the_answer_in_pieces(directed) -> None:
    for episode in directed:
        for one in episode.answered:
            said = ""
            for target in episode.units[one.unit :]:
                if target.action != "speak":
                    break
                said += target.text
                if target.ends:
                    break
            assert one.text.startswith(said)
            assert said


def test_a_turn_is_ended_before_the_next_begins(directed) -> None:
    for episode in directed:
        speaking = False
        for target in episode.units:
            if target.action in ("yield", "cut"):
                assert speaking
            if target.action == "listen":
                assert not speaking
            speaking = target.action == "speak" and not target.ends


def test_the_robot_yields_to_interruptions_alone_and_soon(directed) -> None:
    yields = 0
    for episode in directed:
        cuts = [one for one in episode.voiced if one.kind == "interruption"]
        for unit, target in enumerate(episode.units):
            if target.action == "yield":
                assert any(one.start_s < unit + 1 <= one.start_s + 2 for one in cuts)
                yields += 1
    assert yields > 10


def test_what_happened_is_reported_once_and_soon(directed) -> None:
    alerts = 0
    for episode in directed:
        for one in episode.answered:
            if one.watch is not None:
                alerts += 1
                before, now = (
                    episode.set.view(math.floor(one.event_s) + n).things for n in (-1, 0)
                )
                assert before is not None
                assert now is not None
                assert one.watch.happens(before, now)
                assert one.unit + 1 > one.event_s
    assert alerts > 5


def test_nobody_speaks_to_the_robot_in_a_quiet_episode() -> None:
    for number in range(10):
        rng = np.random.default_rng([6, number])
        lines = Mute(rng)
        episode = Director(rng, lines, no_camera(), 20, quiet=True, fresh=True).direct()  # type: ignore[arg-type]
        assert {one.action for one in episode.units} == {"listen"}
        assert not {"turn", "interruption"} & {one.kind for one in episode.voiced}


def test_the_same_seed_gives_the_same_episode() -> None:
    first, again = (episodes(4)[-1] for _ in range(2))
    assert first.units == again.units
    assert [one.line.text for one in first.voiced] == [one.line.text for one in again.voiced]


def test_who_waits_mostly_asks_to_be_told_and_is_told_more() -> None:
    def count(waits: bool) -> tuple[int, int]:
        promises = alerts = 0
        for number in range(60):
            rng = np.random.default_rng([6, number])
            stage = hastened(random_set(rng, 32), 2.0)
            lines = Mute(rng)
            done = Director(rng, lines, stage, 16, waits=waits).direct()  # type: ignore[arg-type]
            promises += sum(one.text.startswith("I will tell you when") for one in done.answered)
            alerts += sum(one.watch is not None for one in done.answered)
        return promises, alerts

    often, seldom = count(True), count(False)
    assert often[0] > 2 * seldom[0] > 0
    assert often[1] > 1.5 * seldom[1] > 0


def test_who_looks_mostly_asks_about_what_is_in_view() -> None:
    def share(looks: bool) -> float:
        asked = []
        for number in range(60):
            rng = np.random.default_rng([7, number])
            stage, lines = random_set(rng, 16), Mute(rng)
            done = Director(rng, lines, stage, 16, looks=looks).direct()  # type: ignore[arg-type]
            asked += [one.intent in SEEING for one in done.voiced if one.intent]
        return float(np.mean(asked))

    assert share(True) > share(False) + 0.15

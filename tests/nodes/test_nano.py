"""What the brain local does with nano, the checkpoint that ships, through the real nodes. What is
asserted is what it did and when, with room for another machine's rounding.
"""

from __future__ import annotations

import numpy as np
import pytest

from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.media.world.looks import Look
from minicpmo_ros.messages import Action, PlaybackEvent
from minicpmo_ros.nano.noises import noise
from minicpmo_ros.replay import scene
from tests.nodes.talking import Line, Lived, live_through, write_talk

try:
    Synthesiser()
except DeviceError as missing:
    pytest.skip(f"people are spoken by espeak-ng: {missing}", allow_module_level=True)

HELLO, SEE, WATCH, _, _, WAIT, THANKS = range(7)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> scene.Scene:
    return scene.write_scene(tmp_path_factory.mktemp("scene") / "bag")


@pytest.fixture(scope="module")
def lived(made, tmp_path_factory) -> Lived:
    """The demo's scene."""
    return live_through(made.bag, tmp_path_factory.mktemp("lived") / "bag")


def test_the_small_network_decides_every_unit(lived) -> None:
    decisions = [m for _, m in lived.of("decision")]
    assert len(decisions) == scene.LENGTH_S
    assert {m.brain for m in decisions} == {"local"}
    assert all(0 <= m.p_listen <= 1 and 0 <= m.p_speak <= 1 for m in decisions)
    assert decisions[-1].kv_length > 100


def test_it_greets_within_the_next_unit(made, lived) -> None:
    assert lived.answer(made.lines[HELLO].end_s, by_s=1.0) == "Hello!"


def test_it_says_what_it_sees(made, lived) -> None:
    assert lived.answer(made.lines[SEE].end_s) == "I see a red ball and a blue box."


def test_it_promises_to_watch(made, lived) -> None:
    promise = lived.answer(made.lines[WATCH].end_s)
    assert promise == "I will tell you when a yellow cup appears."


def test_it_reports_what_it_promised_when_it_comes(lived) -> None:
    """Nobody says anything then: it speaks on its own, which is an alert, too."""
    reported = lived.answer(scene.CUP_COMES_S, by_s=2.0)
    assert reported == "A yellow cup appeared!"
    alerts = [m for _, m in lived.of("alert") if m.kind == "spoke_unasked"]
    assert alerts
    assert alerts[-1].text == reported
    assert len({m.number for m in alerts}) == 1


def test_it_falls_silent_when_it_is_interrupted(made, lived) -> None:
    line = made.lines[WAIT]
    cuts = [
        s
        for s, m in lived.of("playback")
        if m.event is PlaybackEvent.INTERRUPTED and line.start_s < s < line.end_s
    ]
    assert len(cuts) == 1
    assert lived.said(line.start_s - 3, line.start_s).startswith("Once a small robot")
    assert lived.said(line.end_s + 0.3, made.lines[THANKS].start_s) == ""


def test_neither_a_hand_on_the_lens_nor_a_bang_makes_it_speak(lived) -> None:
    assert lived.said(scene.COVERED_S[0], scene.BANG_S + 3) == ""


def test_it_takes_thanks(made, lived) -> None:
    assert lived.answer(made.lines[THANKS].end_s) == "You are welcome."


def test_it_goes_on_through_a_backchannel(tmp_path) -> None:
    lines = (Line("Count to ten.", 2.4), Line("mhm", 5.5))
    robot = live_through(write_talk(tmp_path / "in", 10, lines), tmp_path / "out")
    assert robot.answer(2.4) == "One, two, three, four, five, six, seven, eight, nine, ten."
    assert PlaybackEvent.INTERRUPTED not in [m.event for _, m in robot.of("playback")]


def test_it_waits_through_a_pause_within_a_sentence(tmp_path) -> None:
    lines = (Line("Please count", 1.6), Line("to three.", 2.7))
    robot = live_through(write_talk(tmp_path / "in", 7, lines), tmp_path / "out")
    assert robot.said(0, 2.7) == ""
    assert robot.answer(2.7) == "One, two, three."


def test_it_is_silent_for_noise_and_for_talk_that_is_for_others(tmp_path) -> None:
    lines = (
        Line("She went to the market yesterday with a friend.", 5.0, "en-gb+f2"),
        Line("I think the film was a bit late, so I called her.", 9.0, "en-us+m3"),
    )
    rng = np.random.default_rng(1)

    def music(samples: int) -> np.ndarray:
        sound = 0.1 * noise("music", samples, rng)
        sound[: samples // 2] *= 0.05
        return sound

    robot = live_through(write_talk(tmp_path / "in", 16, lines, noise=music), tmp_path / "out")
    assert [m.action for _, m in robot.of("decision")] == [Action.LISTEN] * 16


def test_it_says_so_when_it_does_not_understand_a_language(tmp_path) -> None:
    line = Line("Guten Tag, wie geht es?", 3.2, "de")
    robot = live_through(write_talk(tmp_path / "in", 7, (line,)), tmp_path / "out")
    assert robot.answer(3.2) == "I only speak English."


def test_it_says_so_when_it_does_not_know_what_it_sees(tmp_path) -> None:
    photograph = Look.noise_picture(np.random.default_rng(3), size=(320, 240))
    line = Line("What do you see?", 3.2)
    bag = write_talk(tmp_path / "in", 7, (line,), picture=lambda at_s: photograph)
    assert live_through(bag, tmp_path / "out").answer(3.2) == "I do not know."

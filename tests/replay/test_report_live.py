"""The live view: a line for each unit, plain where nobody looks through a terminal."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from minicpmo_ros.messages import (
    Action,
    Alert,
    AudioChunk,
    Decision,
    SessionState,
    Severity,
    State,
    VoiceActivity,
)
from minicpmo_ros.replay.report.live import LiveView
from tests.replay.report_conversation import at, conversation


class Ascii(io.StringIO):
    """A stream that cannot write more than ASCII."""

    encoding = "ascii"


def lines(logged, terminal: bool = False, stream: io.StringIO | None = None) -> list[str]:
    out = stream or io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, color_system="truecolor" if terminal else None, width=80
    )
    with LiveView(console) as view:
        for topic, log_ns, message in logged:
            view.add(topic, log_ns, message)
    return out.getvalue().splitlines()


@pytest.fixture(scope="module")
def shown() -> list[str]:
    return lines(conversation())


def test_there_is_one_line_a_unit_whatever_the_width_of_the_console(shown):
    units = [line for line in shown if re.search(r"\b(LISTEN|SPEAK)\b", line)]
    assert len(units) == 30
    assert [line.split()[0] for line in units] == [f"00:{i:02d}.0" for i in range(30)]


def test_a_unit_that_speaks_says_what(shown):
    (line,) = [line for line in shown if "00:05.0" in line]
    assert line.endswith(
        "SPEAK  I hear you. I see a bright room, and something that moves to the right."
    )


def test_alerts_and_interruptions_have_lines_of_their_own(shown):
    text = "\n".join(shown)
    assert "WARNING The camera seems to be covered. (camera_covered)" in text
    assert "alert 1 is over" in text
    assert "turn 1 was heard to its end" in text
    assert "turn 2 interrupted after 3.2 s: Let me tell you more about it." in text
    assert "epoch 1: barge-in" in text
    assert shown[-1] == "30 units, 2 turns, 1 interrupted, 2 alerts"


def test_lost_sound_and_a_lost_camera_can_be_seen(shown):
    (lost,) = [line for line in shown if "00:27.0" in line]
    assert "···" in lost
    assert "300 ms of silence filled in" in lost
    (dark,) = [line for line in shown if "00:25.0" in line]
    assert "  -  LISTEN" in dark


def test_loudness_and_voice_stand_at_their_tenth_of_the_unit():
    loud, quiet = np.full(1_600, 30_000, np.int16), np.zeros(1_600, np.int16)
    logged = [
        ("audio/mic", at((i + 1) / 10), AudioChunk(at(i / 10), loud if i == 4 else quiet))
        for i in range(10)
    ]
    logged += [
        ("voice", at(0.6), VoiceActivity(at(0.3), True, 1, 0.9, -10.0)),
        ("voice", at(0.9), VoiceActivity(at(0.7), False, 1, 0.1, -60.0)),
        ("decision", at(1.0), Decision(at(1), 0, 0, Action.LISTEN)),
    ]
    unit = lines(logged)[1]
    assert unit[10:20] == "    █     "
    assert unit[22:32] == "   ━━━━   "


def test_outside_a_terminal_there_are_no_control_codes(shown):
    assert all(line.isprintable() for line in shown)


def test_in_a_terminal_there_are_colours():
    assert any("\x1b[" in line for line in lines(conversation(), terminal=True))


def test_a_stream_that_knows_only_ascii_gets_only_ascii():
    assert all(line.isascii() for line in lines(conversation(), stream=Ascii()))


def test_recorded_text_cannot_steer_the_terminal_or_the_markup():
    evil = "\x1b[2J\x1b]0;title\x07[bold red]red[/]\r\nnext\u202eback"
    logged = [
        ("decision", at(1), Decision(at(1), 0, 0, Action.SPEAK, 1, evil)),
        ("alert", at(1), Alert(at(1), evil, 1, Severity.CRITICAL, True, evil, 0, 0)),
        ("state", at(1), SessionState(at(1), State.FAULT, detail=evil)),
    ]
    shown = lines(logged)
    assert len(shown) == 5  # heading, unit, alert, fault, summary
    assert all(line.isprintable() for line in shown)
    assert "[bold red]red[/]" in shown[1]


def test_messages_before_the_first_unit_have_no_time_yet():
    logged = [("alert", at(0), Alert(at(0), "k", 1, Severity.INFO, True, "early", 0, 0))]
    assert "INFO early (k)" in lines(logged)[1]

"""The command `minicpmo`: help, and errors of one line that say what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from minicpmo_ros.nodes import parameters


def minicpmo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "minicpmo_ros.cli", *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_help_names_every_command():
    text = minicpmo("--help").stdout
    commands = ("demo", "live", "devices", "replay", "record", "report", "score", "bag", "bench")
    for command in commands:
        assert command in text


def test_parameters_are_printed_as_the_table_and_as_the_file():
    assert minicpmo("params").stdout == parameters.markdown()
    assert minicpmo("params", "--yaml").stdout == parameters.yaml_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("replay", "nowhere"), "bag nowhere does not exist"),
        (("replay", "nowhere", "--remap", "x"), "must be FROM:=TO"),
        (("report", "tests"), "is no bag"),
        (("score", "nowhere", "--labels", "nothing.json"), "labels nothing.json"),
        (("bag", "from-video", "nowhere.wav"), "nowhere.wav"),
        (("bag", "from-video", "tests/test_cli.py", "--out", "out/none"), "test_cli.py"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_an_error_is_one_line_that_names_what_was_wrong(words, said):
    done = minicpmo(*words)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

"""A figure that is measured in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from minicpmo_ros.bench.process import measured_by
from minicpmo_ros.errors import EngineError

PROGRAM = """
import json, sys
from minicpmo_ros.bench.process import tick
many = int(open(sys.argv[1]).read())
tick()
print(json.dumps({f"figure {number}": number for number in range(many)}))
print("a warning", file=sys.stderr)
sys.exit(many == 0)
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "counting_program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return tmp_path / "spec"


@pytest.mark.timeout(60)
def test_more_than_a_pipe_holds_comes_back_whole(spec: Path) -> None:
    spec.write_text("20000")
    ticks: list[int] = []
    found = measured_by("counting_program", spec, "counting", lambda: ticks.append(1))
    assert (len(found), found["figure 19999"], ticks) == (20_000, 19_999, [1])


def test_one_that_fails_is_told_with_its_last_words(spec: Path) -> None:
    spec.write_text("0")
    with pytest.raises(EngineError, match=r"counting failed \(1\): a warning"):
        measured_by("counting_program", spec, "counting", lambda: None)

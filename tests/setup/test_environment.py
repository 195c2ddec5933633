"""The steps that fill .venv: each runs when its inputs changed, and only then."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from scripts.bootstrap.environment import Environment
from scripts.bootstrap.machine import Python, Ros, SetupError
from scripts.bootstrap.progress import Progress

PYTHON = Python(sys.executable, (3, 11))


class Recorder(Progress):
    """Runs nothing, and creates what `venv` would."""

    def __init__(self, folder: Path) -> None:
        super().__init__(5, folder)
        self.commands: list[str] = []

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        may_fail: bool = False,
        cwd: Path | None = None,
    ) -> None:
        self.commands.append(" ".join(command[1:]))
        if "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    for name in ("base", "report", "test", "no-deps", "ros-kilted"):
        (tmp_path / "requirements" / f"{name}.txt").write_text(f"{name}\n")
    (tmp_path / "msg").mkdir()
    (tmp_path / "msg" / "A.msg").write_text("int16 a\n")
    return tmp_path


def set_up(root: Path, *extras: str, ros: Ros | None = None) -> list[str]:
    """Runs all steps and returns the commands they gave."""
    recorder = Recorder(root / "build")
    environment = Environment(root, PYTHON, ros or Ros("kilted"), {}, recorder)
    environment.create()
    environment.install_ros()
    environment.install_packages(list(extras))
    environment.install_package()
    return recorder.commands


def test_a_second_run_does_nothing(checkout: Path) -> None:
    assert set_up(checkout, "report")
    assert set_up(checkout, "report") == []


def test_ros_and_packages_come_before_our_own(checkout: Path) -> None:
    commands = set_up(checkout)
    ros = next(i for i, c in enumerate(commands) if "ros-kilted.txt" in c)
    base = next(i for i, c in enumerate(commands) if "base.txt" in c)
    own = next(i for i, c in enumerate(commands) if c.endswith("-e ."))
    assert ros < base < own


def test_a_changed_message_rebuilds_the_package_alone(checkout: Path) -> None:
    set_up(checkout)
    (checkout / "msg" / "A.msg").write_text("int16 a\nint16 b\n")
    commands = set_up(checkout)
    assert [c for c in commands if "pip install" in c] == [c for c in commands if "-e ." in c]
    assert any(command.endswith("-e .") for command in commands)


def test_a_new_extra_is_resolved_together_with_the_base(checkout: Path) -> None:
    set_up(checkout, "report")
    commands = set_up(checkout, "report", "test")
    assert "-r requirements/base.txt" in commands[0]
    assert "-r requirements/test.txt" in commands[0]


def test_going_back_to_fewer_extras_does_nothing(checkout: Path) -> None:
    set_up(checkout, "report", "test")
    assert set_up(checkout, "report") == []


def test_a_step_that_failed_is_done_again(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise SetupError("no network")

    with monkeypatch.context() as broken:
        broken.setattr(Environment, "_pip", fail)
        with pytest.raises(SetupError):
            set_up(checkout)
    assert any("ros-kilted.txt" in command for command in set_up(checkout))


def test_another_ros_makes_the_environment_anew(checkout: Path) -> None:
    set_up(checkout)
    commands = set_up(checkout, ros=Ros("jazzy", (str(checkout),)))
    assert any("venv --clear --system-site-packages" in command for command in commands)
    assert not any("ros-" in command for command in commands)


def test_an_unknown_ros_is_refused_with_those_there_are(checkout: Path) -> None:
    with pytest.raises(SetupError, match="MINICPMO_ROS=rolling: PyPI has kilted"):
        set_up(checkout, ros=Ros("rolling"))


def test_a_failing_command_shows_its_end_and_where_the_rest_is(tmp_path: Path) -> None:
    progress = Progress(5, tmp_path)
    progress.begin("Python packages")
    code = "print('first'); print('the reason'); raise SystemExit(3)"
    with pytest.raises(SetupError) as stopped:
        progress.run([sys.executable, "-c", code], {})
    assert "the reason" in str(stopped.value)
    assert "exit status 3" in str(stopped.value)
    assert str(progress.log) in str(stopped.value)
    assert "first" in progress.log.read_text()


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    progress = Progress(5, tmp_path)
    progress.begin("x")
    with pytest.raises(SetupError, match="no-such-program"):
        progress.run(["no-such-program"], {})

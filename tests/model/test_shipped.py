"""The name of the checkpoint that ships."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import minicpmo_ros
from minicpmo_ros.cli import app
from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model import shipped
from minicpmo_ros.model.shipped import checkpoint_directory, nano_directory


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of ours: one without a checkpoint."""
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "package")
    return tmp_path / "package"


def test_it_lies_in_the_package() -> None:
    assert Path(minicpmo_ros.__file__).resolve().parent == shipped._PACKAGE


def test_the_name_is_a_directory_of_the_package(package: Path) -> None:
    directory = package / "nano" / "checkpoint"
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    assert nano_directory() == checkpoint_directory("nano") == directory
    assert checkpoint_directory(Path("nano")) == directory


@pytest.mark.parametrize("begun", [False, True])
def test_a_package_without_it_says_so(package: Path, begun: bool) -> None:
    if begun:
        (package / "nano" / "checkpoint").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"'nano' is not in this installation: .*package"):
        checkpoint_directory("nano")


@pytest.mark.usefixtures("package")
def test_all_else_is_a_path() -> None:
    assert checkpoint_directory("a/nano") == Path("a/nano")
    assert checkpoint_directory(Path("/nano")) == Path("/nano")
    assert checkpoint_directory("~/nano") == Path.home() / "nano"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "words",
    [
        ["checkpoint", "inspect", "nano"],
        ["engines", "plan", "--checkpoint", "nano"],
        ["engines", "build", "--checkpoint", "nano"],
        ["engines", "check", "--checkpoint", "nano"],
        ["parity", "--checkpoint", "nano", "--golden", "x"],
    ],
)
def test_commands_know_the_name(words: list[str]) -> None:
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, CheckpointError)
    assert "'nano' is not in this installation" in str(error)


def test_finding_and_verifying_it_need_no_torch() -> None:
    code = """
import sys
sys.modules["torch"] = sys.modules["safetensors"] = None  # as if they were not installed
from minicpmo_ros.model.shipped import checkpoint_directory
from minicpmo_ros.model.sums import check_sums
check_sums(checkpoint_directory("/nowhere"))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""What makes set-up do a step again, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.bootstrap.stamps import Stamps, digest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "msg").mkdir()
    (tmp_path / "msg" / "A.msg").write_text("int16 a\n")
    (tmp_path / "setup.py").write_text("")
    return tmp_path


def test_same_inputs_give_the_same_key(tree: Path) -> None:
    assert digest(tree, ["msg", "setup.py"], "3.11") == digest(tree, ["msg", "setup.py"], "3.11")


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "msg" / "A.msg").write_text("int16 b\n"),
        lambda tree: (tree / "msg" / "A.msg").rename(tree / "msg" / "B.msg"),
        lambda tree: (tree / "msg" / "B.msg").write_text(""),
        lambda tree: (tree / "setup.py").unlink(),
    ],
    ids=["content", "name", "new file", "file gone"],
)
def test_a_changed_input_changes_the_key(tree: Path, change: Callable[[Path], object]) -> None:
    before = digest(tree, ["msg", "setup.py"])
    change(tree)
    assert digest(tree, ["msg", "setup.py"]) != before


def test_compiled_python_is_no_input(tree: Path) -> None:
    before = digest(tree, ["msg"])
    (tree / "msg" / "__pycache__").mkdir()
    (tree / "msg" / "__pycache__" / "a.pyc").write_bytes(b"\0")
    assert digest(tree, ["msg"]) == before


def test_a_fact_counts_like_a_file(tree: Path) -> None:
    assert digest(tree, ["msg"], "jazzy") != digest(tree, ["msg"], "kilted")


def test_stamps_of_other_steps_survive_a_new_one(tmp_path: Path) -> None:
    stamps = Stamps(tmp_path / "stamps.json")
    stamps.write(ros="1")
    stamps.write(package="2")
    assert stamps.current("ros", "1")
    assert stamps.current("package", "2")
    assert not stamps.current("package", "3")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ros": '])
def test_a_damaged_stamp_file_means_that_nothing_is_done(tmp_path: Path, content: str) -> None:
    file = tmp_path / "stamps.json"
    file.write_text(content)
    assert not Stamps(file).current("ros", "1")

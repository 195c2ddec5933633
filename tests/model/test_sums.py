"""SHA256SUMS of a checkpoint: its files are those that were meant, or it is told which are not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.sums import SUMS, check_sums, write_sums


@pytest.fixture
def summed(own_checkpoint: Path) -> Path:
    (own_checkpoint / "engines" / "vision").mkdir(parents=True)
    (own_checkpoint / "engines" / "vision" / "stage.bin").write_bytes(bytes(100))
    (own_checkpoint / ".commit").write_text("c0ffee\n")
    write_sums(own_checkpoint)
    return own_checkpoint


def test_all_files_but_hidden_ones_are_listed_whatever_folder_they_are_in(summed: Path) -> None:
    listed = {line.split("  ")[1] for line in (summed / SUMS).read_text().splitlines()}
    there = {file.relative_to(summed).as_posix() for file in summed.rglob("*") if file.is_file()}
    assert listed == there - {SUMS, ".commit"}
    assert {"model.safetensors", "engines/vision/stage.bin"} <= listed
    before = (summed / SUMS).read_bytes()
    assert write_sums(summed).read_bytes() == before


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs coreutils")
@pytest.mark.parametrize("binary", [False, True])
def test_the_list_is_that_of_coreutils(summed: Path, binary: bool) -> None:
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", SUMS], cwd=summed, check=True)
    (summed / SUMS).unlink()
    command = ["sha256sum", *["--binary"] * binary, "config.json", "model.safetensors"]
    theirs = subprocess.run(command, cwd=summed, check=True, capture_output=True)
    (summed / SUMS).write_bytes(theirs.stdout)
    check_sums(summed)
    (summed / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"of 2 files, config\.json is missing"):
        check_sums(summed)


def test_a_checkpoint_that_is_as_it_was_made_opens(summed: Path) -> None:
    Checkpoint(summed)
    (summed / "NOTES.md").write_text("what came later is nobody's business")
    Checkpoint(summed)


def alter(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "engines/vision/stage.bin"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (alter, r"has other bytes \(\d+\)"),
        (cut, r"has other bytes \(\d+\)"),
        (Path.unlink, "is missing"),
    ],
)
def test_a_file_that_is_not_as_it_was_is_named_with_what_to_do(
    name: str, spoil: Callable[[Path], None], said: str, summed: Path
) -> None:
    spoil(summed / name)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(summed)
    assert caught.match(rf"of \d+ files, {name} {said}\. Install or copy it again")
    assert f"remove {summed / SUMS}" in str(caught.value)
    assert "tokenizer.json" not in str(caught.value)


def test_many_wrong_files_are_counted(summed: Path) -> None:
    for number in range(7):
        (summed / f"{number}.txt").write_text("one")
    write_sums(summed)
    for number in range(7):
        (summed / f"{number}.txt").write_text("other")
    with pytest.raises(CheckpointError, match=r"0\.txt .*4\.txt has other bytes \(5\) and 2 more"):
        check_sums(summed)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("c0ffee  config.json\n", r"line 1: 'c0ffee  config\.json' is not a SHA-256"),
        (f"{'0' * 64}  config.json\n{'0' * 40}", r"line 2: "),
        (f"{'0' * 64}  ../config.json\n", r"\.\./config\.json is not below"),
        (f"{'0' * 64}  /etc/passwd\n", "/etc/passwd is not below"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_list_that_is_none_is_told(content: str | bytes, said: str, own_checkpoint: Path) -> None:
    raw = content if isinstance(content, bytes) else content.encode()
    (own_checkpoint / SUMS).write_bytes(raw)
    with pytest.raises(CheckpointError, match=said):
        Checkpoint(own_checkpoint)


def test_without_a_list_nothing_is_read(tiny_checkpoint: Path, tmp_path: Path) -> None:
    check_sums(tiny_checkpoint)
    check_sums(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="has no files to write"):
        write_sums(tmp_path)

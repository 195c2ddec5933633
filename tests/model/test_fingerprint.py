"""Fingerprints: another for every change, and bytes read once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model import fingerprint as module
from minicpmo_ros.model.fingerprint import fingerprint, remembered_directories

WEIGHTS = bytes(range(256)) * 300
FILES = {
    "config.json": b'{"hidden_size": 128}',
    "preprocessor_config.json": b"{}",
    "tokenizer.json": b'{"model": 1}',
    "tokenizer_config.json": b"{}",
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": WEIGHTS[::-1],
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "README.md": b"about it",
}


def make(directory: Path, files: dict[str, bytes] = FILES) -> Path:
    """Files that were written an hour ago."""
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        file = directory / name
        file.write_bytes(content)
        age(file, 3600)
    return directory


def age(file: Path, seconds: int) -> None:
    stamp = file.stat().st_mtime_ns - seconds * 10**9
    os.utime(file, ns=(stamp, stamp))


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "checkpoints.json"


def read_bytes(directory: Path, memory: Path) -> int:
    """How many bytes a fingerprint had to read."""
    seen = [0]
    fingerprint(directory, memory, lambda done, total: seen.append(done))
    return seen[-1]


def test_a_copy_elsewhere_has_the_same(tmp_path, memory):
    first = fingerprint(make(tmp_path / "a"), memory)
    assert fingerprint(make(tmp_path / "b"), memory) == first
    assert len(first) == 64


@given(st.integers(0, len(WEIGHTS) - 1), st.integers(0, 7), st.sampled_from([4, 5]))
def test_any_bit_of_a_weight_changes_it(tmp_path_factory, place, bit, which):
    folder = tmp_path_factory.mktemp("bits")
    name = list(FILES)[which]
    spoilt = bytearray(FILES[name])
    spoilt[place] ^= 1 << bit
    before = fingerprint(make(folder / "a"), folder / "memory.json")
    changed = make(folder / "a", {name: bytes(spoilt)})
    age(changed / name, 1)
    assert fingerprint(changed, folder / "memory.json") != before


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".json")])
def test_settings_and_tokenizer_count(tmp_path, memory, name):
    before = fingerprint(make(tmp_path / "a"), memory)
    assert fingerprint(make(tmp_path / "b", {**FILES, name: b'{"x": 2}'}), memory) != before
    without = {key: content for key, content in FILES.items() if key != name}
    if name != "config.json":
        assert fingerprint(make(tmp_path / "c", without), memory) != before


def test_what_no_network_is_made_from_does_not_count(tmp_path, memory):
    before = fingerprint(make(tmp_path / "a"), memory)
    assert fingerprint(make(tmp_path / "a", {"README.md": b"other"}), memory) == before


def test_exchanged_files_are_not_the_same(tmp_path, memory):
    first, second = list(FILES)[4:6]
    exchanged = {**FILES, first: FILES[second], second: FILES[first]}
    assert fingerprint(make(tmp_path / "a"), memory) != fingerprint(
        make(tmp_path / "b", exchanged), memory
    )


def test_a_file_under_another_name_is_not_the_same(tmp_path, memory):
    settings = {name: FILES[name] for name in ("config.json", "model-00001-of-00002.safetensors")}
    found = {
        fingerprint(make(tmp_path / name, {**settings, f"{name}.json": b"{}"}), memory)
        for name in ("vocab", "tokenizer", "added_tokens")
    }
    assert len(found) == 3


def test_bytes_are_read_once(tmp_path, memory):
    directory = make(tmp_path / "a")
    total = sum(len(content) for name, content in FILES.items() if name != "README.md")
    assert read_bytes(directory, memory) == total
    assert read_bytes(directory, memory) == 0
    assert remembered_directories(memory) == [directory]
    changed = make(directory, {"config.json": b"{}"})
    age(changed / "config.json", 5)
    assert read_bytes(directory, memory) == 2


def test_a_file_that_was_just_written_is_read_again(tmp_path, memory):
    """It may change once more without another time of change."""
    directory = make(tmp_path / "a")
    (directory / "config.json").write_bytes(b'{"a": 1}')
    first = fingerprint(directory, memory)
    stamp = (directory / "config.json").stat()
    (directory / "config.json").write_bytes(b'{"a": 2}')
    os.utime(directory / "config.json", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert fingerprint(directory, memory) != first


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', '{"x": {"stamp": []}}', "\0"])
def test_a_damaged_memory_costs_time_only(tmp_path, memory, content):
    directory = make(tmp_path / "a")
    first = fingerprint(directory, memory)
    memory.write_text(content)
    assert read_bytes(directory, memory) > 0
    assert fingerprint(directory, memory) == first
    assert read_bytes(directory, memory) == 0


def test_no_memory_can_be_written_and_all_goes_on(tmp_path):
    (tmp_path / "file").write_text("in the way")
    directory = make(tmp_path / "a")
    assert fingerprint(directory, tmp_path / "file" / "m.json") == fingerprint(
        directory, tmp_path / "m.json"
    )


def test_memories_of_several_checkpoints_stand_side_by_side(tmp_path, memory):
    one, two = make(tmp_path / "a"), make(tmp_path / "b")
    fingerprint(one, memory)
    fingerprint(two, memory)
    assert read_bytes(one, memory) == read_bytes(two, memory) == 0
    assert not list(memory.parent.glob("*.part"))
    assert len(json.loads(memory.read_text())) == 2 * (len(FILES) - 1)


def test_what_was_read_before_a_cut_is_remembered(tmp_path, memory):
    def cut(done: int, total: int) -> None:
        if done > len(WEIGHTS) + 1000:  # in the second file of weights
            raise KeyboardInterrupt

    directory = make(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        fingerprint(directory, memory, cut)
    assert 0 < read_bytes(directory, memory) <= len(WEIGHTS) + 200


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, memory):
    directory = make(tmp_path / "a")
    file = directory / "model-00001-of-00002.safetensors"

    def grow(done: int, total: int) -> None:
        if file.stat().st_size == len(WEIGHTS):
            file.write_bytes(WEIGHTS + b"more")

    with pytest.raises(CheckpointError, match=r"00001-of-00002.safetensors changed while"):
        fingerprint(directory, memory, grow)


@pytest.mark.parametrize(
    ("left_out", "said"),
    [("config.json", "has no config.json"), (".safetensors", r"has no weights, \*.safetensors")],
)
def test_no_checkpoint_is_an_error(tmp_path, memory, left_out, said):
    files = {name: content for name, content in FILES.items() if not name.endswith(left_out)}
    with pytest.raises(CheckpointError, match=said):
        fingerprint(make(tmp_path / "a", files), memory)


def test_a_whole_checkpoint_has_one(tiny_checkpoint, memory):
    assert fingerprint(tiny_checkpoint, memory) == fingerprint(str(tiny_checkpoint), memory)


def test_no_torch_is_imported():
    code = f"import sys, {module.__name__}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

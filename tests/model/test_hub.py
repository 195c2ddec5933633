"""Downloads: what is asked for, one commit a directory, whole or an error."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.hub import fetch


class FakeHub:
    """A server with one repository, whose link may break after some files."""

    def __init__(self, files: Mapping[str, bytes], commit: str = "c0ffee") -> None:
        self.content = dict(files)
        self.commit = commit
        self.known = ["0ld"]
        self.asked: list[str] = []
        self.sent: list[str] = []
        self.breaks_after: int | None = None

    def files(self, repository: str, revision: str) -> tuple[str, Mapping[str, int]]:
        self.asked.append(revision)
        commit = revision if revision in self.known else self.commit
        return commit, {name: len(content) for name, content in self.content.items()}

    def download(self, repository: str, commit: str, files: list[str], directory: Path) -> None:
        for name in files:
            target = directory / name
            if target.exists() and target.stat().st_size == len(self.content[name]):
                continue
            if self.breaks_after is not None and len(self.sent) >= self.breaks_after:
                raise ConnectionError("the line went dead\nand more")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.content[name])
            self.sent.append(name)


@pytest.fixture
def hub() -> FakeHub:
    names = ["config.json", "tokenizer.json", "merges.txt", "model-00001-of-00001.safetensors"]
    names += ["assets/token2wav/flow.pt", "assets/HT_ref_audio.wav"]
    names += ["modeling_minicpmo.py", "assets/Skiing.mp4", "other/model.safetensors"]
    return FakeHub({name: name.encode() for name in names})


def quiet(text: str) -> None:
    pass


def test_what_the_stack_uses_is_brought_and_no_more(hub: FakeHub, tmp_path: Path) -> None:
    assert fetch(tmp_path / "new", hub=hub, say=quiet) == "c0ffee"
    assert sorted(hub.sent) == [
        "assets/HT_ref_audio.wav",
        "assets/token2wav/flow.pt",
        "config.json",
        "merges.txt",
        "model-00001-of-00001.safetensors",
        "tokenizer.json",
    ]


def test_it_says_what_comes(hub: FakeHub, tmp_path: Path) -> None:
    said: list[str] = []
    fetch(tmp_path, "someone/some-model", hub=hub, say=said.append)
    assert said == ["someone/some-model at c0ffee: 6 files, 0.0 GB"]


def test_a_broken_download_goes_on_where_it_stopped(hub: FakeHub, tmp_path: Path) -> None:
    hub.breaks_after = 2
    with pytest.raises(CheckpointError, match="the line went dead; the same command goes on"):
        fetch(tmp_path, hub=hub, say=quiet)
    assert len(hub.sent) == 2
    hub.breaks_after = None
    fetch(tmp_path, hub=hub, say=quiet)
    assert len(hub.sent) == len(set(hub.sent)) == 6


def test_a_directory_stays_with_the_commit_it_was_begun_with(hub: FakeHub, tmp_path: Path) -> None:
    fetch(tmp_path, hub=hub, say=quiet)
    hub.commit, begun = "newer", hub.commit
    hub.known.append(begun)
    assert fetch(tmp_path, hub=hub, say=quiet) == begun
    assert hub.asked == ["main", begun]


def test_two_commits_are_never_mixed(hub: FakeHub, tmp_path: Path) -> None:
    fetch(tmp_path, revision="0ld", hub=hub, say=quiet)
    sent = len(hub.sent)
    with pytest.raises(CheckpointError, match="holds commit 0ld, and v2 is c0ffee"):
        fetch(tmp_path, revision="v2", hub=hub, say=quiet)
    assert len(hub.sent) == sent


def test_too_small_a_disk_is_told_before_anything_is_brought(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(CheckpointError, match=r"are still to come.*are free"):
        fetch(tmp_path, hub=hub, say=quiet)
    assert not hub.sent


def test_room_is_needed_for_the_rest_only(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(tmp_path, hub=hub, say=quiet)
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert fetch(tmp_path, hub=hub, say=quiet) == "c0ffee"


def test_a_file_that_came_short_is_named(hub: FakeHub, tmp_path: Path) -> None:
    class Short(FakeHub):
        def download(self, repository: str, commit: str, files: list[str], directory: Path) -> None:
            super().download(repository, commit, files, directory)
            (directory / "merges.txt").write_bytes(b"me")

    with pytest.raises(CheckpointError, match=r"not whole after the download: merges\.txt"):
        fetch(tmp_path, hub=Short(hub.content), say=quiet)


def test_a_repository_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a/b at c0ffee has no config\.json"):
        fetch(tmp_path, "a/b", hub=FakeHub({"README.md": b"hi"}), say=quiet)

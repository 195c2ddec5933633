"""Downloads a published checkpoint: only what is used, of one commit, going on where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol, TypeVar

from minicpmo_ros.errors import CheckpointError

REPOSITORY = "openbmb/MiniCPM-o-4_5"
# Resolved to a commit at the first call; the folder remembers that commit until --revision says
# otherwise, so that no directory ever mixes files of two.
REVISION = "main"
COMMIT_FILE = ".commit"
# Not the reference's code, nor its films.
WANTED = (
    "*.json",
    "*.txt",
    "*.jinja",
    "*.safetensors",
    "LICENSE*",
    "README*",
    "assets/token2wav/*",
    "assets/*.wav",
)

Result = TypeVar("Result")


class Hub(Protocol):
    """What is asked of a server of checkpoints."""

    def files(self, repository: str, revision: str) -> tuple[str, Mapping[str, int]]:
        """The commit that a revision is, and its files with their bytes."""

    def download(self, repository: str, commit: str, files: list[str], directory: Path) -> None:
        """Bring these files; those that are there, whole or in part, are not brought again."""


class HuggingFace:
    """The public hub. HF_ENDPOINT, HF_TOKEN and proxies work as with its own tools."""

    def files(self, repository: str, revision: str) -> tuple[str, Mapping[str, int]]:
        from huggingface_hub import HfApi

        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        return str(info.sha), sizes

    def download(self, repository: str, commit: str, files: list[str], directory: Path) -> None:
        from huggingface_hub import snapshot_download

        snapshot_download(repository, revision=commit, local_dir=directory, allow_patterns=files)


def fetch(
    directory: Path,
    repository: str = REPOSITORY,
    revision: str | None = None,
    *,
    hub: Hub | None = None,
    say: Callable[[str], None] = print,
) -> str:
    """Download a checkpoint, or the rest of one.

    Args:
        revision: branch, tag or commit; None for the commit that the directory was begun with,
            else REVISION.
        hub: where from; the public one unless a test has its own.

    Returns:
        The commit.

    Raises:
        CheckpointError: the server cannot be reached or refuses, the directory holds another
            commit, or the disk is too small.
    """
    hub = hub or HuggingFace()
    begun = directory / COMMIT_FILE
    have = begun.read_text(encoding="utf-8").strip() if begun.exists() else None
    wanted = revision or have or REVISION
    commit, offered = _asked(lambda: hub.files(repository, wanted), repository, wanted)
    if have and have != commit:
        raise CheckpointError(
            f"{directory} holds commit {have}, and {wanted} is {commit}; take another directory,"
            " or delete this one"
        )
    files = {
        name: size
        for name, size in offered.items()
        if any(
            fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in WANTED
        )
    }
    if "config.json" not in files:
        raise CheckpointError(
            f"{repository} at {commit} has no config.json, so it is no checkpoint"
        )
    directory.mkdir(parents=True, exist_ok=True)
    _check_space(directory, files)
    begun.write_text(commit + "\n", encoding="utf-8")
    say(f"{repository} at {commit}: {len(files)} files, {sum(files.values()) / 1e9:.1f} GB")
    _asked(lambda: hub.download(repository, commit, sorted(files), directory), repository, commit)
    _check_whole(directory, files)
    return commit


def _check_space(directory: Path, files: Mapping[str, int]) -> None:
    """What is there in whole counts; a file that is there in part needs its room once more."""
    rest = sum(size for name, size in files.items() if _size(directory / name) != size)
    free = shutil.disk_usage(directory).free
    if rest > free:
        raise CheckpointError(
            f"{directory}: {rest / 1e9:.1f} GB are still to come, {free / 1e9:.1f} GB are free;"
            " make room or take another directory"
        )


def _check_whole(directory: Path, files: Mapping[str, int]) -> None:
    # A server that does not tell sizes says 0.
    broken = [name for name, size in files.items() if size and _size(directory / name) != size]
    if broken:
        raise CheckpointError(
            f"{directory}: not whole after the download: {', '.join(broken)}; delete these and"
            " fetch again"
        )


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.exists() else None


def _asked(question: Callable[[], Result], repository: str, revision: str) -> Result:
    """The hub's answer; whatever its client raises becomes one sentence with what to do."""
    try:
        return question()
    except ImportError as error:
        raise CheckpointError(f"downloads need the extra `model`: {error}") from None
    except Exception as error:  # several HTTP libraries' errors, by the client's version
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{repository} at {revision} cannot be downloaded: {reason[0]}; the same command goes"
            " on where this one stopped. Behind a mirror set HF_ENDPOINT, with a token HF_TOKEN"
        ) from error

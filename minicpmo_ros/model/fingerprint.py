"""What a checkpoint is, in one number: any other weight, size or token gives another. No torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from minicpmo_ros.errors import CheckpointError

Progress = Callable[[int, int], None]
"""Called with the bytes that are read and those that there are to read."""

# Beside the weights, what a network and its words are made from; those that are there count.
SETTINGS = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "model.safetensors.index.json",
)
PIECE_BYTES = 4 * 2**20
# A file that changed so recently may change again within the same tick of its clock.
SETTLED_NS = 2 * 10**9


def fingerprint(
    directory: Path | str, memory: Path | None, progress: Progress = lambda done, total: None
) -> str:
    """SHA-256 over the names and bytes of a checkpoint's settings, tokenizer and weights.

    Args:
        memory: JSON file that remembers what each file's bytes came to, so that they are read once
            for as long as the file's size, time of change and inode stay as they are. It may be
            None, missing, damaged or not writable: then they are read again.

    Returns:
        64 hexadecimal digits.

    Raises:
        CheckpointError: the directory is no whole checkpoint, a file cannot be read, or one changed
            while it was read.
    """
    files = _files(Path(directory).resolve())
    whole = hashlib.sha256()
    for file, digest in zip(files, digests(files, memory, progress), strict=True):
        whole.update(f"{file.name} {digest}\n".encode())
    return whole.hexdigest()


def digests(
    files: Sequence[Path], memory: Path | None, progress: Progress = lambda done, total: None
) -> list[str]:
    """SHA-256 of the bytes of each file, read once for as long as `memory` holds; see
    `fingerprint`.

    Args:
        files: which are there, by their resolved paths.

    Raises:
        CheckpointError: a file cannot be read, or changed while it was read.
    """
    known = _remembered(memory)
    stamps = {file: _stamp(file) for file in files}
    unread = [file for file in files if known.get(str(file), {}).get("stamp") != stamps[file]]
    total = sum(stamps[file][0] for file in unread)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    found: dict[str, dict[str, object]] = {}
    for file in unread:
        digest = _hash_settled(file, stamps[file], advance)
        entry: dict[str, object] = {"stamp": stamps[file], "sha256": digest}
        known[str(file)] = entry
        if abs(time.time_ns() - stamps[file][1]) > SETTLED_NS:
            found[str(file)] = entry
            _remember(memory, found)  # each as it is known: 19 GB may be cut off in the middle
    return [str(known[str(file)]["sha256"]) for file in files]


def remembered_directories(memory: Path | None) -> list[Path]:
    """Those of which a memory knows files, whether they are still there or not."""
    return sorted({Path(name).parent for name in _remembered(memory)})


def sha256(file: Path, progress: Callable[[int], None] = lambda count: None) -> str:
    """Of a file's bytes, as 64 hexadecimal digits; `progress` gets the bytes of each piece."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as opened:
        while piece := opened.read(PIECE_BYTES):
            digest.update(piece)
            progress(len(piece))
    return digest.hexdigest()


def _files(directory: Path) -> list[Path]:
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"{directory} has no config.json, so it is no checkpoint; `minicpmo checkpoint fetch`"
            " downloads one, `minicpmo checkpoint tiny` makes a small random one"
        )
    weights = list(directory.glob("*.safetensors"))
    if not weights:
        raise CheckpointError(
            f"{directory} has no weights, *.safetensors; `minicpmo checkpoint fetch` brings them"
        )
    return sorted([*weights, *(file for name in SETTINGS if (file := directory / name).is_file())])


def _stamp(file: Path) -> list[int]:
    """Size, time of change, inode."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _hash_settled(file: Path, stamp: list[int], progress: Callable[[int], None]) -> str:
    try:
        digest = sha256(file, progress)
        after = _stamp(file)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    if after != stamp:
        raise CheckpointError(
            f"{file} changed while it was read; try again when the checkpoint is whole"
        )
    return digest


def _remembered(memory: Path | None) -> dict[str, dict[str, object]]:
    if memory is None:
        return {}
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: entry
        for name, entry in found.items()
        if isinstance(entry, dict) and {"stamp", "sha256"} <= entry.keys()
    }


def _remember(memory: Path | None, found: dict[str, dict[str, object]]) -> None:
    """Beside what others have written meanwhile. Two at once may forget what one of them read:
    it is then read again."""
    if memory is None:
        return
    part = memory.with_name(f"{memory.name}.{os.getpid()}.part")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(_remembered(memory) | found, indent=1), encoding="utf-8")
        part.replace(memory)
    except OSError:
        # A folder that cannot be written to costs time, and nothing else.
        with contextlib.suppress(OSError):
            part.unlink()

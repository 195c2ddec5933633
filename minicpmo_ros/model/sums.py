"""SHA256SUMS of a checkpoint that ships: whether its files are those that were meant. No torch."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.fingerprint import sha256

SUMS = "SHA256SUMS"
# As `sha256sum` writes it: the star is for files that are read as binary, which all are here.
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
# How many files a message names.
NAMED = 5


def write_sums(directory: Path | str) -> Path:
    """List all files below a directory, save hidden ones, in its SHA256SUMS, which
    `sha256sum -c SHA256SUMS` reads as well.

    Returns:
        The file.

    Raises:
        CheckpointError: there is nothing to list, or the list cannot be written.
    """
    directory = Path(directory)
    names = [file.relative_to(directory) for file in directory.rglob("*") if file.is_file()]
    listed = sorted(
        name.as_posix()
        for name in names
        if name.as_posix() != SUMS and not any(part.startswith(".") for part in name.parts)
    )
    if not listed:
        raise CheckpointError(f"{directory} has no files to write {SUMS} of")
    file = directory / SUMS
    part = directory / f".{SUMS}.part"
    lines = [f"{sha256(directory / name)}  {name}\n" for name in listed]
    try:
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be written: {error.strerror}") from None
    return file


def check_sums(directory: Path | str) -> None:
    """Read every file that SHA256SUMS lists; nothing where there is no such list.

    Raises:
        CheckpointError: files are missing or have other bytes, or the list is no list; the message
            names them and says what to do.
    """
    file = Path(directory) / SUMS
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None
    wanted = _parsed(file, text)
    wrong = {name: what for name, digest in wanted.items() if (what := _wrong(file, name, digest))}
    if not wrong:
        return
    named = ", ".join(f"{name} {what}" for name, what in list(wrong.items())[:NAMED])
    more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    raise CheckpointError(
        f"{file.parent} is not as it was made: of {len(wanted)} files, {named}{more}. Install or"
        f" copy it again; if you changed it on purpose, remove {file}"
    )


def _parsed(file: Path, text: str) -> dict[str, str]:
    """Digests by the names of files."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise CheckpointError(
                f"{file}, line {number}: {line[:80]!r} is not a SHA-256, two spaces and the name of"
                " a file; install or copy the checkpoint again"
            )
        digest, name = parts.groups()
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise CheckpointError(f"{file}, line {number}: {name} is not below {file.parent}")
        found[name] = digest
    if not found:
        raise CheckpointError(f"{file} is empty; install or copy the checkpoint again")
    return found


def _wrong(sums: Path, name: str, digest: str) -> str:
    """What is wrong with a file; empty if nothing is."""
    file = sums.parent / name
    try:
        return "" if sha256(file) == digest else f"has other bytes ({file.stat().st_size})"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"

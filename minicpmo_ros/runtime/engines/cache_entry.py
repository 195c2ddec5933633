"""One entry of the engine cache: the key that it is asked for by, and its manifest."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.fingerprint import sha256

MANIFEST = "manifest.json"
# Of the manifest and of what keys mean; another number is another cache.
FORMAT = 1
_STAGE = re.compile(r"[a-z0-9_.]+")


@dataclass(frozen=True)
class EngineKey:
    """All that the files of a stage depend on: another value of any is another entry.

    checkpoint: its fingerprint (`model.fingerprint`). stage: "vision", "llm.00" and so on.
    precision: of its matrices, with whatever else changes their values. shapes: what it is built
    for, as JSON knows it (lists for tuples). runtime, version: what it is built by. target: the
    device that it is for: "any", "sm86+sm89", "sm87 Orin, 16 multiprocessors".

    Raises:
        EngineError: the stage's name is none that a folder may have.
    """

    checkpoint: str
    stage: str
    precision: str
    shapes: Mapping[str, Any] = field(hash=False)
    runtime: str
    version: str
    target: str

    def __post_init__(self) -> None:
        if not _STAGE.fullmatch(self.stage):
            raise EngineError(
                f"stage '{self.stage}': a name has small letters, digits, dots and _ only"
            )
        # As a manifest gives it back.
        object.__setattr__(self, "shapes", json.loads(json.dumps(self.shapes)))

    @property
    def digest(self) -> str:
        """SHA-256 of all of it: 64 hexadecimal digits, the same in any process."""
        return hashlib.sha256(
            json.dumps([FORMAT, asdict(self)], sort_keys=True).encode()
        ).hexdigest()

    @property
    def name(self) -> str:
        """Of the entry's folder."""
        return f"{self.stage}-{self.digest[:16]}"

    def without_version(self) -> str:
        """The digest of what it is but for the runtime's version."""
        return replace(self, version="").digest


@dataclass(frozen=True)
class File:
    """Bytes of a file and their SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """What a manifest says. made: when. seconds: that building took. source: directory of the
    checkpoint. files: by their paths in the folder."""

    folder: Path
    key: EngineKey
    made: datetime
    seconds: float
    source: str
    files: Mapping[str, File]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def nbytes(self) -> int:
        return sum(file.size for file in self.files.values())


def write_manifest(
    folder: Path, key: EngineKey, *, made: datetime, seconds: float, source: str
) -> None:
    """Hash all that lies in the folder, bring it to the disk, and write down what it is.

    Raises:
        EngineError: nothing lies there.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise EngineError(f"building {key.stage} gave no files; this is a mistake of its builder")
    files = {
        str(path.relative_to(folder)): asdict(File(path.stat().st_size, sha256(path)))
        for path in paths
    }
    manifest = folder / MANIFEST
    content = {
        "format": FORMAT,
        "key": asdict(key),
        "made": made.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "source": source,
        "files": files,
    }
    manifest.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for path in (*paths, manifest):
        # Before a power cut could leave a whole entry of empty files.
        with path.open("rb") as opened:
            os.fsync(opened.fileno())


def read_manifest(folder: Path) -> Entry:
    """The entry in a folder, its files not looked at.

    Raises:
        EngineError: the manifest is missing, damaged, or that of another folder.
    """
    file = folder / MANIFEST
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, not {FORMAT}")
        entry = Entry(
            folder,
            EngineKey(**content["key"]),
            datetime.fromisoformat(content["made"]),
            float(content["seconds"]),
            str(content["source"]),
            {name: File(**found) for name, found in content["files"].items()},
        )
    except FileNotFoundError:
        raise EngineError(_damaged(folder, f"{file} is missing")) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(_damaged(folder, f"{file} is damaged ({error})")) from None
    return entry


def check_sizes(entry: Entry) -> None:
    """Raise EngineError unless every file is there and of its size."""
    for name, wanted in entry.files.items():
        file = entry.folder / name
        try:
            size = file.stat().st_size
        except OSError:
            raise EngineError(_damaged(entry.folder, f"{file} is missing")) from None
        if size != wanted.size:
            text = f"{file} has {size} of {wanted.size} bytes"
            raise EngineError(_damaged(entry.folder, text))


def verify(entry: Entry, progress: Callable[[int], None] = lambda count: None) -> None:
    """Read every file and raise EngineError unless its bytes are those that were built.

    `progress` gets the bytes of each piece; all are `entry.nbytes`.
    """
    check_sizes(entry)
    for name, wanted in entry.files.items():
        file = entry.folder / name
        try:
            found = sha256(file, progress)
        except OSError as error:
            raise EngineError(
                _damaged(entry.folder, f"{file} cannot be read ({error.strerror})")
            ) from None
        if found != wanted.sha256:
            raise EngineError(_damaged(entry.folder, f"{file} is damaged: its bytes have changed"))


def _damaged(folder: Path, what: str) -> str:
    return f"{what}; `minicpmo engines clean {folder.name}` removes it, then build it again"

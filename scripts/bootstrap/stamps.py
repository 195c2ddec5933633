"""Remembers, inside the virtual environment, of which inputs each step's result was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path


def digest(root: Path, paths: Iterable[str], *facts: object) -> str:
    """Hash of files and folders below `root` (names and contents) and of further facts."""
    state = hashlib.sha256(repr(facts).encode())
    for path in paths:
        start = root / path
        files = sorted(start.rglob("*")) if start.is_dir() else [start]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                content = file.read_bytes()
                state.update(f"{file.relative_to(root)} {len(content)}\n".encode() + content)
    return state.hexdigest()


class Stamps:
    """Keys of finished steps, in one JSON file. It goes away with the environment it describes."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> dict[str, str]:
        try:
            stored = json.loads(self.file.read_text())
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def current(self, step: str, key: str) -> bool:
        return self.read().get(step) == key

    def write(self, **keys: str) -> None:
        """Adds keys; a crash in between leaves the old file, never half of a new one."""
        stored = {**self.read(), **keys}
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(stored, indent=1, sort_keys=True))
        partial.replace(self.file)

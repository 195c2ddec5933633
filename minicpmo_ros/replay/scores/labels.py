"""What somebody wrote down about a recording: who said what kind of thing, and what happened.

A JSON file; each of the two lists may be left out::

    {
      "user": [{"start_s": 2.0, "stop_s": 4.4, "kind": "turn"}],
      "events": [{"t_s": 9.2, "name": "camera_covered"}]
    }

Seconds count from the first sound of the microphone. user: all of what people said, in place of
what voice activity heard; `kind` is one of turn, interruption, backchannel, tic, not_directed.
events: all that the robot should have reported; `name` is the kind of the alert it should give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minicpmo_ros.errors import InputError
from minicpmo_ros.replay.scores.session import Event, UserSegment


@dataclass(frozen=True)
class Labels:
    """None: nobody wrote that down."""

    user: tuple[UserSegment, ...] | None = None
    events: tuple[Event, ...] | None = None


def read_labels(path: str | Path) -> Labels:
    """Raises `InputError` that names the file and what in it is wrong."""
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"labels {path}: no JSON file ({error})") from error
    if not isinstance(found, dict) or found.keys() - {"user", "events"}:
        raise InputError(f'labels {path}: must be {{"user": [...], "events": [...]}}')
    user = _entries(found, "user", {"start_s": float, "stop_s": float, "kind": str}, path)
    events = _entries(found, "events", {"t_s": float, "name": str}, path)
    try:
        return Labels(
            None if user is None else tuple(UserSegment(**entry) for entry in user),
            None if events is None else tuple(Event(**entry) for entry in events),
        )
    except InputError as error:
        raise InputError(f"labels {path}: {error}") from error


def _entries(
    found: Mapping[str, Any], key: str, shape: Mapping[str, type], path: str | Path
) -> list[dict[str, Any]] | None:
    if key not in found:
        return None
    entries = found[key]
    if not isinstance(entries, list):
        raise InputError(f"labels {path}: {key} must be a list")
    for i, entry in enumerate(entries):
        if not (isinstance(entry, dict) and entry.keys() == shape.keys() and _fits(entry, shape)):
            fields = ", ".join(
                f"{name} ({'text' if kind is str else 'seconds'})" for name, kind in shape.items()
            )
            raise InputError(f"labels {path}: {key}[{i}] is {entry!r}, must have {fields}")
    return entries


def _fits(entry: Mapping[str, Any], shape: Mapping[str, type]) -> bool:
    return all(
        isinstance(entry[name], str)
        if kind is str
        else isinstance(entry[name], (int, float)) and not isinstance(entry[name], bool)
        for name, kind in shape.items()
    )

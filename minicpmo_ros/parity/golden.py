"""A golden pair: PREFIX.json says what was fed and which ids came out, PREFIX.npz has the arrays.

Any selection of entries makes a pair; what the JSON lists is what is compared.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import InputError
from minicpmo_ros.parity.entries import (
    AudioStreamEntry,
    Json,
    Picture,
    Session,
    Slicing,
    SpeechEntry,
    read_ids,
    read_picture,
    read_session,
    read_slicing,
    read_speech,
    read_stream,
)

BROKEN = (ValueError, OSError, EOFError, BadZipFile, zlib.error)
KNOWN = ("slicing", "vision", "audio_stream", "audio_ref", "prompt ids", "llm", "tts", "duplex_*")


@dataclass
class Golden:
    """One pair, read.

    The fields are None or empty where the JSON does not list them.
    """

    prefix: Path
    arrays: Mapping[str, NDArray[Any]]
    slicing: list[Slicing] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    audio_stream: AudioStreamEntry | None = None
    voice: tuple[float, int] | None = None
    prompt_prefix: list[int] | None = None
    prompt_suffix: list[int] | None = None
    greedy: list[int] | None = None
    speech: SpeechEntry | None = None
    sessions: list[Session] = field(default_factory=list)
    token_bytes: dict[int, bytes] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def array(self, key: str) -> NDArray[Any]:
        """An array that is there (see `fits`).

        Raises:
            InputError: it cannot be read, or holds NaN.
        """
        self.asked.add(key)
        try:
            array: NDArray[Any] = self.arrays[key]
        except BROKEN as error:
            raise InputError(f"{self.prefix}.npz: array {key} cannot be read: {error}") from None
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InputError(f"{self.prefix}.npz: array {key} holds what are no finite numbers")
        return array

    def names(self, pattern: str) -> Iterator[re.Match[str]]:
        """The arrays whose whole name matches, whether or not the JSON lists them."""
        for name in self.arrays:
            if found := re.fullmatch(pattern, name):
                yield found

    def unasked(self) -> list[str]:
        """Arrays that no entry has asked for."""
        return [name for name in self.arrays if name not in self.asked]


def read_golden(prefix: Path | str) -> Golden:
    """Read PREFIX.json and open PREFIX.npz.

    Raises:
        InputError: one of them is not there or broken, the JSON lists what is not known here, or
            an entry lacks a field; the message names it.
    """
    prefix = Path(prefix)
    listed = _read_json(prefix.with_name(prefix.name + ".json"))
    golden = Golden(prefix, _open_npz(prefix.with_name(prefix.name + ".npz")))
    for name, entry in listed.items():
        try:
            _take(golden, name, entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else f"is malformed: {error}"
            raise InputError(f"{prefix}.json: entry {name} {what}") from None
    return golden


def _take(golden: Golden, name: str, entry: Json) -> None:
    """Put one entry of the JSON where it belongs."""
    if name == "slicing":
        golden.slicing = [read_slicing(one) for one in entry]
    elif name == "vision":
        golden.pictures = [read_picture(one) for one in entry]
    elif name == "audio_stream":
        golden.audio_stream = read_stream(entry)
    elif name == "audio_ref":
        golden.voice = float(entry["seconds"]), int(entry["wave_seed"])
    elif name == "prompt_prefix_ids":
        golden.prompt_prefix = read_ids(entry)
    elif name == "prompt_suffix_ids":
        golden.prompt_suffix = read_ids(entry)
    elif name == "llm":
        golden.greedy = read_ids(entry["greedy"])
    elif name == "tts":
        golden.speech = read_speech(entry)
    elif name == "token_bytes":
        golden.token_bytes = {int(token): bytes.fromhex(text) for token, text in entry.items()}
    elif name.startswith("duplex_"):
        golden.sessions.append(read_session(name, entry))
    elif isinstance(entry, dict | list):
        raise ValueError(f"what it pins is not known here; known are {', '.join(KNOWN)}")
    # Anything else, such as a seed, is a remark and pins nothing.


def _read_json(path: Path) -> dict[str, Json]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} is not there; a golden pair is named by what its files have in common, as"
            " golden_seed0 for golden_seed0.json and golden_seed0.npz"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__}, not an object of entries")
    return found


def _open_npz(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        found = np.load(path)
    except FileNotFoundError:
        raise InputError(f"{path} is not there; its JSON is, so half of the pair is") from None
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read as a file of arrays: {error}") from None
    if not isinstance(found, Mapping):
        raise InputError(f"{path} holds one array, not a file of named arrays")
    return found

"""A golden pair: PREFIX.json says what was fed and which ids came out, PREFIX.npz has the arrays.

Any selection of entries makes a pair; what the JSON lists is what is compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import InputError

Json = Any
Size = tuple[int, int]

KNOWN = ("slicing", "vision", "audio_stream", "audio_ref", "prompt ids", "llm", "tts", "duplex_*")


@dataclass(frozen=True)
class Slicing:
    """How one picture is cut. sizes are (width, height), grid is (columns, rows) or None, cells
    are the sizes of the cells, row by row."""

    size: Size
    max_slices: int
    grid: list[int] | None
    source: list[int]
    cells: list[list[list[int]]]


@dataclass(frozen=True)
class Picture:
    """A picture that was encoded. tgt_sizes: rows and columns of patches of each slice."""

    key: str
    size: Size
    max_slices: int
    seed: int
    tgt_sizes: list[list[int]]


@dataclass(frozen=True)
class AudioStreamEntry:
    """Sound through the streaming encoder. kv_len, mel_frames: after, and of, each second."""

    seconds: float
    seed: int
    kv_len: list[int]
    mel_frames: list[int] | None


@dataclass(frozen=True)
class SpeechEntry:
    """Text said by the speech decoder. chunks: codes of each chunk, all of the same condition."""

    text_ids: list[int]
    chunks: list[list[int]]
    temperature: float


@dataclass(frozen=True)
class Dialogue:
    """A duplex session of `units` seconds.

    pictures: width, height and the seed of unit 0's, or None. voice: seconds and seed. bias: added
    to the logits of these ids. script: what the sampler returned instead of sampling: for each unit
    None or ids and names of control tokens. rows: what came out of each unit, by the names in the
    JSON. The rest is as in the JSON.
    """

    name: str
    window: str
    units: int
    pictures: tuple[int, int, int] | None
    wave_seed: int
    voice: tuple[float, int]
    forced_listens: int
    length_penalty: float
    speech_temperature: float
    bias: dict[int, float]
    options: dict[str, Any]
    script: list[list[int | str] | None] | None
    prompt_length: int
    rows: list[dict[str, Any]]
    total_ids: list[int]
    previous_ids: list[int]

    @property
    def speaks(self) -> bool:
        """Whether speech was on: the vocoder was then asked for something some time."""
        return any(row.get("vocoder") for row in self.rows)


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
    dialogues: list[Dialogue] = field(default_factory=list)
    token_bytes: dict[int, bytes] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def array(self, key: str) -> NDArray[Any]:
        """An array that an entry of the JSON needs.

        Raises:
            InputError: it is not in the npz, cannot be read, or holds NaN.
        """
        self.asked.add(key)
        if key not in self.arrays:
            raise InputError(
                f"{self.prefix}.npz has no array {key}, which {self.prefix.name}.json asks for;"
                " the two files are not of one pair, or one is cut short"
            )
        try:
            array: NDArray[Any] = self.arrays[key]
        except (ValueError, OSError, EOFError, BadZipFile) as error:
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
        golden.slicing = [_slicing(one) for one in entry]
    elif name == "vision":
        golden.pictures = [_picture(one) for one in entry]
    elif name == "audio_stream":
        golden.audio_stream = AudioStreamEntry(
            float(entry["seconds"]),
            int(entry["wave_seed"]),
            _ids(entry["kv_len"]),
            _ids(entry["mel_frames"]) if "mel_frames" in entry else None,
        )
    elif name == "audio_ref":
        golden.voice = float(entry["seconds"]), int(entry["wave_seed"])
    elif name == "prompt_prefix_ids":
        golden.prompt_prefix = _ids(entry)
    elif name == "prompt_suffix_ids":
        golden.prompt_suffix = _ids(entry)
    elif name == "llm":
        golden.greedy = _ids(entry["greedy"])
    elif name == "tts":
        golden.speech = _speech(entry)
    elif name == "token_bytes":
        golden.token_bytes = {int(token): bytes.fromhex(text) for token, text in entry.items()}
    elif name.startswith("duplex_"):
        golden.dialogues.append(_dialogue(name, entry))
    elif isinstance(entry, dict | list):
        raise ValueError(f"what it pins is not known here; known are {', '.join(KNOWN)}")
    # Anything else, such as a seed, is a remark and pins nothing.


def _slicing(one: Json) -> Slicing:
    grid = None if one["grid"] is None else _ids(one["grid"])
    cells = [[_ids(cell) for cell in row] for row in one["cells"]]
    return Slicing(_size(one["size"]), int(one["max_slice_nums"]), grid, _ids(one["source"]), cells)


def _picture(one: Json) -> Picture:
    return Picture(
        str(one["key"]),
        _size(one["size"]),
        int(one["max_slice_nums"]),
        int(one["image_seed"]),
        [_ids(size) for size in one["tgt_sizes"]],
    )


def _speech(entry: Json) -> SpeechEntry:
    chunks = sorted((key for key in entry if re.fullmatch(r"chunk\d+", key)), key=_number)
    if not chunks:
        raise KeyError("chunk1")
    temperature = _near_greedy(entry["temperature"])
    return SpeechEntry(_ids(entry["text_ids"]), [_ids(entry[key]) for key in chunks], temperature)


def _dialogue(name: str, entry: Json) -> Dialogue:
    if entry["decode"] != "greedy":
        raise ValueError(f"decode is {entry['decode']!r}; only what was greedy can be compared")
    frames, script = entry["frames"], entry["scripted_samples"]
    rows = [dict(row) for row in entry["rows"]]
    units = int(entry["units"])
    for what, count in (("rows", len(rows)), ("scripted_samples", len(script or rows))):
        if count != units:
            raise ValueError(f"{count} {what} of {units} units")
    seconds, seed = entry["ref_wave"]
    bias = entry["logit_bias_added_to_lm_head"]
    return Dialogue(
        name=name,
        window=str(entry["window"]),
        units=units,
        pictures=(
            None
            if frames is None
            else (int(frames["width"]), int(frames["height"]), int(frames["seed_of_unit_0"]))
        ),
        wave_seed=int(entry["wave_seed"]),
        voice=(float(seconds), int(seed)),
        forced_listens=int(entry["force_listen_count"]),
        length_penalty=float(entry["length_penalty"]),
        speech_temperature=_near_greedy(entry["tts_temperature"]),
        bias={int(token): float(value) for token, value in bias.items()},
        options=dict(entry["options"]),
        script=script,
        prompt_length=int(entry["prompt_cache_len"]),
        rows=rows,
        total_ids=_ids(entry["total_ids"]),
        previous_ids=_ids(entry["previous_ids"]),
    )


def _near_greedy(temperature: Json) -> float:
    """A speech temperature that leaves next to nothing to chance."""
    if not 0 < temperature <= 0.01:
        raise ValueError(
            f"speech was drawn at a temperature of {temperature}; what can be compared was drawn"
            " at 0.01 or below, for nobody else has that generator"
        )
    return float(temperature)


def _ids(values: Json) -> list[int]:
    return [int(value) for value in values]


def _size(values: Json) -> Size:
    width, height = _ids(values)
    return width, height


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))


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

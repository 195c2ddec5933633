"""The entries of a golden pair, and how each is written in the JSON.

What reads them raises KeyError, TypeError or ValueError for an entry that is not as it should be;
`golden` says which.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

Json = Any
Size = tuple[int, int]

# The window's settings, as the reference calls them.
OPTIONS = {
    "basic_window_high_tokens": "high_tokens",
    "basic_window_low_tokens": "low_tokens",
    "context_max_units": "max_units",
    "context_previous_max_tokens": "previous_tokens",
}


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
class Session:
    """A duplex session of `units` seconds.

    pictures: width, height and the seed of unit 0's, or None. voice: seconds and seed. bias: added
    to the logits of these ids. script: what the sampler returned instead of sampling: for each unit
    None or ids and names of control tokens. rows: what came out of each unit, by the names in the
    JSON. options: of the window, as `WindowConfig` calls them. The rest is as in the JSON.
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
    options: dict[str, int]
    script: list[list[int | str] | None] | None
    prompt_length: int
    rows: list[dict[str, Any]]
    total_ids: list[int]
    previous_ids: list[int]

    @property
    def speaks(self) -> bool:
        """Whether speech was on: the vocoder was then asked for something some time."""
        return any(row.get("vocoder") for row in self.rows)


def read_stream(entry: Json) -> AudioStreamEntry:
    mel_frames = read_ids(entry["mel_frames"]) if "mel_frames" in entry else None
    return AudioStreamEntry(
        float(entry["seconds"]), int(entry["wave_seed"]), read_ids(entry["kv_len"]), mel_frames
    )


def read_slicing(one: Json) -> Slicing:
    grid = None if one["grid"] is None else read_ids(one["grid"])
    cells = [[read_ids(cell) for cell in row] for row in one["cells"]]
    return Slicing(
        _size(one["size"]), int(one["max_slice_nums"]), grid, read_ids(one["source"]), cells
    )


def read_picture(one: Json) -> Picture:
    return Picture(
        str(one["key"]),
        _size(one["size"]),
        int(one["max_slice_nums"]),
        int(one["image_seed"]),
        [read_ids(size) for size in one["tgt_sizes"]],
    )


def read_speech(entry: Json) -> SpeechEntry:
    chunks = sorted((key for key in entry if re.fullmatch(r"chunk\d+", key)), key=_number)
    if not chunks:
        raise KeyError("chunk1")
    temperature = _near_greedy(entry["temperature"])
    return SpeechEntry(
        read_ids(entry["text_ids"]), [read_ids(entry[key]) for key in chunks], temperature
    )


def read_session(name: str, entry: Json) -> Session:
    if entry["decode"] != "greedy":
        raise ValueError(f"decode is {entry['decode']!r}; only what was greedy can be compared")
    frames, script = entry["frames"], entry["scripted_samples"]
    rows = [dict(row) for row in entry["rows"]]
    units = int(entry["units"])
    for what, count in (("rows", len(rows)), ("scripted_samples", len(script or rows))):
        if count != units:
            raise ValueError(f"{count} {what} of {units} units")
    if unknown := sorted(entry["options"].keys() - OPTIONS.keys()):
        raise ValueError(f"options {', '.join(unknown)}; known are {', '.join(OPTIONS)}")
    seconds, seed = entry["ref_wave"]
    bias = entry["logit_bias_added_to_lm_head"]
    temperature = float(entry["tts_temperature"])
    if any(row.get("vocoder") for row in rows):
        temperature = _near_greedy(temperature)
    return Session(
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
        speech_temperature=temperature,
        bias={int(token): float(value) for token, value in bias.items()},
        options={OPTIONS[option]: int(value) for option, value in entry["options"].items()},
        script=script,
        prompt_length=int(entry["prompt_cache_len"]),
        rows=rows,
        total_ids=read_ids(entry["total_ids"]),
        previous_ids=read_ids(entry["previous_ids"]),
    )


def _near_greedy(temperature: Json) -> float:
    """A speech temperature that leaves next to nothing to chance."""
    if not 0 < temperature <= 0.01:
        raise ValueError(
            f"speech was drawn at a temperature of {temperature}; what can be compared was drawn"
            " at 0.01 or below, for nobody else has that generator"
        )
    return float(temperature)


def read_ids(values: Json) -> list[int]:
    """Whole numbers in a row: ids, a size, counts."""
    return [int(value) for value in values]


def _size(values: Json) -> Size:
    width, height = read_ids(values)
    return width, height


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))

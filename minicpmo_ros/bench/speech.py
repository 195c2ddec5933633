"""`minicpmo bench speech`: codes to sound, by runtime, precision, steps and first chunk."""

from __future__ import annotations

import json as jsonlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from rich.table import Table

from minicpmo_ros.bench.figures import Figure, show
from minicpmo_ros.bench.process import measured_by
from minicpmo_ros.bench.random_vocoder import write_assets
from minicpmo_ros.bench.speech_turns import SCHEDULES
from minicpmo_ros.errors import ConfigError, EngineError
from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.tiny import PUBLISHED, TINY
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.disk import check_disk
from minicpmo_ros.runtime.engines.host_memory import available_bytes
from minicpmo_ros.runtime.engines.pieces import Piece
from minicpmo_ros.runtime.engines.planning import vocoder_memory
from minicpmo_ros.runtime.export.vocoder_weights import read_config, sized
from minicpmo_ros.runtime.vocoder_load import ensure_vocoder

SIZES: dict[str, tuple[FlowConfig, HiftConfig]] = {
    "full": (PUBLISHED, HiftConfig()),
    "tiny": (TINY, HiftConfig(mels=TINY.mels, channels=32, f0_channels=24)),
}
VOICE_TOKENS = 125  # a voice of five seconds
# A second of speech takes llama.cpp-omni so many seconds: its own figures, its own hardware.
ANCHORS = {"llama.cpp-omni, RTX 4090": 0.15, "llama.cpp-omni, M4 Max": 0.47}
REFERENCE_FIRST = 25  # tokens of the published code's first chunk
LIVE = 1.0  # times as long as it sounds, speech may take at most
Found = dict[str, float]


@dataclass(frozen=True)
class Way:
    """What the vocoder is run by. device: "cpu" or "cuda"."""

    runtime: str
    precision: str
    device: str = "cpu"

    @property
    def name(self) -> str:
        return f"{self.runtime}.{self.precision}" + ("" if self.device == "cpu" else ".cuda")

    @property
    def plain(self) -> dict[str, Any]:
        """As a recipe has it. What it says of the rest is of no effect here."""
        rest = {"torch": "auto", "onnxruntime": "fp16" if self.device == "cuda" else "int8"}
        return {
            "runtime": self.runtime,
            "precision": rest[self.runtime],
            "device": self.device,
            "vocoder": {"precision": self.precision},
        }


# The first is what the others are held against, the second what figures without a way are of.
REFERENCE, OURS = Way("torch", "fp32"), Way("onnxruntime", "fp32")
WAYS = (REFERENCE, OURS, Way("onnxruntime", "int8"))
ON_CARD = (Way("torch", "fp32", "cuda"), Way("torch", "fp16", "cuda"))


def bench(
    size: str = "full",
    steps: Sequence[int] = (10, 5, 3),
    firsts: Sequence[int] = (8, 25),
    seconds: int = 4,
    rounds: int = 2,
    threads: int = 0,
    json: Path | None = None,
) -> None:
    """Measure, print, and with a path write the figures as JSON.

    Args:
        size: of SIZES.
        steps: of the solver.
        firsts: tokens of the first chunk, of `speech_turns.SCHEDULES`.
        seconds: of speech in a turn.
        rounds: turns of each kind, behind one to warm up.

    Raises:
        ConfigError: an unknown size or first chunk, steps out of range. EngineError: too little
            memory or disk.
    """
    if size not in SIZES:
        raise ConfigError(f"size '{size}': there are {', '.join(SIZES)}")
    if not steps or not all(1 <= one <= 10 for one in steps):
        raise ConfigError(f"steps: {', '.join(map(str, steps)) or 'none'}: each must be 1 to 10")
    if not firsts or not all(one in SCHEDULES for one in firsts):
        raise ConfigError(
            f"first: {', '.join(map(str, firsts)) or 'none'}: each must be one of"
            f" {', '.join(map(str, SCHEDULES))} tokens"
        )
    steps, firsts = list(dict.fromkeys(steps)), sorted(set(firsts))
    flow, hift = SIZES[size]
    ways = WAYS + (ON_CARD if torch.cuda.is_available() else ())
    _check_room(flow, hift, ways)
    plan: dict[str, Any] = {"steps": steps, "firsts": firsts, "tokens": 25 * seconds}
    plan |= {"voice": VOICE_TOKENS, "rounds": rounds, "threads": threads}
    turns = len(steps) * len(firsts) * (rounds + 1)
    with Progress(transient=True) as bar, tempfile.TemporaryDirectory(prefix="minicpmo_") as folder:
        task = bar.add_task(f"{size}: weights", total=1 + len(ways) * (1 + turns))

        def advance() -> None:
            bar.advance(task, 1)

        directory = Path(folder)
        read_config(write_assets(directory, flow, hift))  # which also converts them
        advance()
        found = {}
        for way in ways:
            bar.update(task, description=f"{size}: {way.name}, files")
            wanted = recipe.of(way.plain)
            files = ensure_vocoder(directory, wanted, EngineCache(directory / "engines"))
            advance()
            bar.update(task, description=f"{size}: {way.name}, turns")
            spec = plan | {"bytes": _step_bytes(flow, hift, way, files)}
            found[way] = _measured(way, spec, directory, advance)
        errors = _errors(directory, ways)
        bar.console.print(_table(found, steps, firsts))
        bar.console.print(chunk_table(found, max(steps), firsts))
    import onnxruntime

    conditions = {
        "threads": threads or os.cpu_count(),
        "turn": f"{seconds} s",
        "voice": f"{VOICE_TOKENS / 25:g} s",
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    show("minicpmo bench speech", figures(size, found, errors), json, conditions)


def figures(size: str, found: dict[Way, Found], errors: dict[Way, float]) -> list[Figure]:
    """All of a run. Figures without a way are of OURS, the most steps and the smallest first chunk;
    those of single chunks are of OURS with the most steps."""
    prefix = "speech." if size == "full" else f"speech.{size}."
    ours = found[OURS]
    pairs = [key.removesuffix(".turn_s") for key in ours if key.endswith(".turn_s")]
    most = max(int(pair.split(".")[0]) for pair in pairs)
    least = min(int(pair.split(".")[1]) for pair in pairs)
    best, usual = f"{most}.{least}", f"{most}.{REFERENCE_FIRST}"
    rtf = _rtf(ours, best)
    made = [
        Figure.at_most(f"{prefix}rtf", rtf, LIVE)
        if size == "full"
        else Figure(f"{prefix}rtf", rtf),
        Figure(f"{prefix}first_sound_ms", ours[f"{best}.first_ms"], "ms"),
        Figure(f"{prefix}tokens_before_first_sound", ours[f"{best}.first_tokens"]),
    ]
    if usual in pairs and usual != best:
        # The reference waits for 28 tokens, and then has more to compute.
        over = ours[f"{best}.first_ms"] / ours[f"{usual}.first_ms"]
        made.append(Figure(f"{prefix}first_sound_over_28_tokens", over))
    for way, one in found.items():
        name = f"{prefix}{way.name}."
        for pair in pairs:
            steps, first = pair.split(".")
            at = f"{name}steps{steps}.first{first}."
            made += [
                Figure(f"{at}rtf", _rtf(one, pair)),
                Figure(f"{at}first_sound_ms", one[f"{pair}.first_ms"], "ms"),
                Figure(f"{at}flow_percent", 100 * one[f"{pair}.flow_s"] / one[f"{pair}.turn_s"]),
                Figure(f"{at}hift_percent", 100 * one[f"{pair}.hift_s"] / one[f"{pair}.turn_s"]),
                Figure(f"{at}least_reserve_ms", _least_reserve_ms(one, pair), "ms"),
            ]
            if way == OURS and int(steps) == most:
                made += [
                    Figure(f"{at}chunk{number}.{name}", one[f"{pair}.chunk{number}.{name}"], "ms")
                    for number in _chunks(one, pair)
                    for name in ("made_ms", "ready_ms")
                ]
        read = int(best.split(".")[0]) * one["read_ms"]
        made += [
            Figure(f"{name}chunk_over_read", one[f"{best}.chunk_ms"] / read),
            Figure(f"{name}turn_over_torch", _rtf(one, best) / _rtf(found[REFERENCE], best)),
            Figure(f"{name}voice_s", one["voice_s"], "s"),
            Figure(f"{name}rss_gb", one["rss.peak"] / 1e9, "GB"),
            Figure(f"{name}pasts_gb", one["pasts"] / 1e9, "GB"),
            Figure(f"{name}mel_error", errors[way]),
        ]
        if "card.peak" in one:
            made.append(Figure(f"{name}card_gb", one["card.peak"] / 1e9, "GB"))
    return made


def _rtf(found: Found, pair: str) -> float:
    return found[f"{pair}.turn_s"] / found[f"{pair}.sound_s"]


def _chunks(found: Found, pair: str) -> range:
    """Numbers of the chunks that gave sound, from 1."""
    made = [key for key in found if key.startswith(f"{pair}.chunk") and key.endswith(".made_ms")]
    return range(1, 1 + len(made))


def _least_reserve_ms(found: Found, pair: str) -> float:
    """Of speech, when a chunk came that was not the first; below 0 there was a gap."""
    return min(found[f"{pair}.chunk{number}.reserve_ms"] for number in _chunks(found, pair)[1:])


def _measured(way: Way, spec: dict[str, Any], folder: Path, advance: Callable[[], None]) -> Found:
    """See `speech_turns.measure`; in a process of its own."""
    file = folder / f"{way.name}.json"
    spec = spec | {"directory": str(folder), "recipe": way.plain}
    file.write_text(jsonlib.dumps(spec | {"frames": str(folder / f"{way.name}.npy")}))
    module = "minicpmo_ros.bench.speech_turns"
    return measured_by(module, file, way.name, advance, folder / "engines")


def _errors(folder: Path, ways: Sequence[Way]) -> dict[Way, float]:
    """By how much frames are off those of REFERENCE, as a share: roots of mean squares."""
    frames = {way: np.load(folder / f"{way.name}.npy") for way in ways}
    right = frames[REFERENCE]
    scale = float(np.sqrt(np.mean(np.square(right))))
    return {
        way: float(np.sqrt(np.mean(np.square(mine - right)))) / scale
        for way, mine in frames.items()
    }


def _step_bytes(flow: FlowConfig, hift: HiftConfig, way: Way, files: dict[Piece, Path]) -> int:
    """Of the weights that a step of the solver reads."""
    config = sized(flow, hift)
    for piece in files:
        if piece.name == "flow.estimator":
            return piece.nbytes(config)
    kind = "float32" if way.precision == "fp32" else "float16"
    return Piece("flow.estimator", way.runtime, "fp32", kind).nbytes(config)


def _check_room(flow: FlowConfig, hift: HiftConfig, ways: Sequence[Way]) -> None:
    """Raise EngineError before files are written that nothing can be measured with."""
    config = sized(flow, hift)
    weights = 4 * sum(int(np.prod(shape)) for shape in config.shapes.values())
    # As they are published, converted, and as graphs of each precision.
    check_disk(Path(tempfile.gettempdir()), 4 * weights, "the random vocoder")
    need = max(vocoder_memory(config, recipe.of(way.plain)) for way in ways)
    free = available_bytes()
    if free and need + weights > free:
        raise EngineError(
            f"the vocoder takes {(need + weights) / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are"
            f" free; --size takes {', '.join(SIZES)}"
        )


def _table(found: dict[Way, Found], steps: Sequence[int], firsts: Sequence[int]) -> Table:
    table = Table(title="seconds for a second of speech", title_justify="left", box=None)
    table.add_column("", justify="left")
    for count in steps:
        for first in firsts:
            table.add_column(f"{count} steps, {first} first", justify="right")
    for way, one in found.items():
        cells = [_rtf(one, f"{count}.{first}") for count in steps for first in firsts]
        table.add_row(way.name, *(f"{cell:.3f}" for cell in cells))
    for name, anchor in ANCHORS.items():
        table.add_row(name, f"{anchor:.2f}")
    return table


def chunk_table(found: dict[Way, Found], steps: int, firsts: Sequence[int]) -> Table:
    """How much speech is ready when, of turns with so many steps: a row for each chunk."""
    title = f"speech ready when, with {steps} steps (reserve below 0: a gap)"
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("", justify="left")
    for heading in ("first", "codes drawn", "ms since the first", "ms ready", "ms in reserve"):
        table.add_column(heading, justify="right")
    for way, one in found.items():
        for first in firsts:
            for number in _chunks(one, f"{steps}.{first}"):
                at = f"{steps}.{first}.chunk{number}."
                reserve = one.get(f"{at}reserve_ms")
                table.add_row(
                    way.name if number == 1 else "",
                    str(first) if number == 1 else "",
                    f"{one[f'{at}tokens']:.0f}",
                    f"{one[f'{at}made_ms']:.0f}",
                    f"{one[f'{at}ready_ms']:.0f}",
                    "" if reserve is None else f"{reserve:.0f}",
                )
    return table

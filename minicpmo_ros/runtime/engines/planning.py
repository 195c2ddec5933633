"""What a recipe will need before anything is begun: disk, memory to build, memory to run. No torch.

The figures are reckoned from sizes; docs/engines.md holds them against measured ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.sound_stream import POSITIONS_PER_SECOND, capacity_s
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines.disk import bytes_text
from minicpmo_ros.runtime.engines.pieces import Piece, Sizes, pieces, vocoder_pieces
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT

# Beside weights and caches: the process with its libraries, and what is computed on the way, of
# which a picture's attention is the most.
PROCESS = 350 * 10**6
SCORES = 4  # arrays of attention scores that are in memory at once
# Building an engine takes so many times the graph's weights.
TENSORRT_BUILD = 3.4
LEAST_CAPACITY = 1024
VOICE_TOKENS = 125  # of a voice of five seconds, that the vocoder speaks in


@dataclass(frozen=True)
class PlannedPiece:
    """A file, its bytes, the memory that building it takes, and whether it is there."""

    piece: Piece
    nbytes: int
    memory: int
    built: bool


@dataclass(frozen=True)
class RunMemory:
    """Bytes that a loaded network takes at most, by what takes them. where: "memory", or "card"."""

    where: str
    weights: int
    kv: int
    kv_tokens: int
    sound: int
    work: int
    vocoder: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.sound + self.work + self.vocoder


@dataclass(frozen=True)
class Planned:
    pieces: tuple[PlannedPiece, ...]
    run: RunMemory

    @property
    def disk(self) -> int:
        """Of what is not there yet."""
        return sum(one.nbytes for one in self.pieces if not one.built)

    @property
    def build_memory(self) -> int:
        """The most that building takes at once; 0 where all is built."""
        return max((one.memory for one in self.pieces if not one.built), default=0)


def planned(
    config: ModelConfig, recipe: Recipe, built: set[str], vocoder: VocoderConfig | None = None
) -> Planned:
    """What a recipe needs. built: names of pieces that are there."""
    found = []
    all_pieces: list[tuple[Piece, Sizes]] = [(piece, config) for piece in pieces(config, recipe)]
    if vocoder is not None and recipe.vocoder.runtime != "torch":
        all_pieces += [(piece, vocoder) for piece in vocoder_pieces(recipe)]
    for piece, sizes in all_pieces:
        memory = piece.memory(sizes)
        nbytes = piece.nbytes(sizes)
        if piece.runtime in TENSORRT:
            memory = max(memory, int(TENSORRT_BUILD * nbytes))
            nbytes *= 2  # the graph, and the engine that is made of it
        found.append(PlannedPiece(piece, nbytes, memory, piece.name in built))
    speaks = vocoder_memory(vocoder, recipe) if vocoder is not None else 0
    return Planned(tuple(found), run_memory(config, recipe, vocoder=speaks))


def vocoder_memory(config: VocoderConfig, recipe: Recipe) -> int:
    """Bytes that a vocoder takes in a turn, with the recipe's steps and a voice of five seconds:
    weights, and what each step remembers."""
    sizes, flow = config.flow.estimator, config.flow
    half = recipe.vocoder.precision in ("fp16", "bf16")
    if recipe.vocoder.runtime == "torch":
        values = sum(math.prod(shape) for shape in config.shapes.values())
        weights = values * (2 if half else 4)
    else:
        weights = sum(piece.nbytes(config) for piece in vocoder_pieces(recipe))
    slots = 2 * flow.conformer.up * VOICE_TOKENS
    row = sizes.layers * 2 * 2 * sizes.heads * sizes.head_dim
    return weights + recipe.vocoder.steps * row * slots * (2 if half else 4)


def run_memory(
    config: ModelConfig, recipe: Recipe, kv_tokens: int = 0, vocoder: int = 0
) -> RunMemory:
    """Of a network with a context of so many tokens; 0: all that the recipe allows. vocoder: bytes
    that it takes."""
    on_card = recipe.on_card(recipe.llm.runtime)
    value = 2 if on_card else 4
    tokens = kv_tokens or recipe.kv_capacity
    weights = sum(piece.nbytes(config) for piece in pieces(config, recipe) if not piece.is_table)
    audio = config.audio
    positions = capacity_s(audio) * POSITIONS_PER_SECOND
    # Two caches, because one begins before the other ends; see `model.sound_stream`.
    sound = 2 * 2 * audio.layers * audio.hidden * positions * value
    patches = (config.slices.resolution // config.vision.patch) ** 2
    work = PROCESS + SCORES * config.vision.heads * patches * patches * value
    kv = config.llm.kv_values_per_token * tokens * value
    where = "card" if on_card else "memory"
    return RunMemory(where, weights, kv, tokens, sound, work, vocoder)


def check_build_memory(recipe: Recipe, to_build: int, free: int) -> None:
    """Raise EngineError where a build will not fit; see `check_memory`."""
    if free and to_build > free:
        raise EngineError(
            f"building for the recipe '{recipe.name}' takes {bytes_text(to_build)} of memory at"
            f" once, {bytes_text(free)} are free: end other programs, or build on a larger machine"
            " and copy the folder of engines (`minicpmo engines list` names it)"
        )


def check_memory(
    config: ModelConfig, recipe: Recipe, have: int, to_build: int, free: int, kv_tokens: int = 0
) -> None:
    """Raise EngineError where a build, or what it makes, will not fit; nothing was begun then.

    Args:
        have: bytes of memory that the network may take where it runs; 0: not known here.
        to_build: bytes that building takes. free: bytes that may be taken now; 0: not known.
        kv_tokens: of context, in place of the recipe's; 0: the recipe's.
    """
    check_build_memory(recipe, to_build, free)
    need = run_memory(config, recipe, kv_tokens)
    if not have or need.total <= have:
        return
    rest = have - (need.total - need.kv)
    fits = int(rest / (need.kv / need.kv_tokens)) if rest > 0 else 0
    if fits >= LEAST_CAPACITY:
        advice = (
            f"kv_capacity: {fits // 256 * 256} would fit, with window_high_tokens a few hundred"
            " below it"
        )
    else:
        advice = (
            f"even with {LEAST_CAPACITY} tokens it takes"
            f" {bytes_text(run_memory(config, recipe, LEAST_CAPACITY).total)}: take fewer bits, or"
            " a smaller checkpoint"
        )
    raise EngineError(
        f"with the recipe '{recipe.name}' the network takes {bytes_text(need.total)} of"
        f" {need.where} (weights {bytes_text(need.weights)}, {need.kv_tokens} tokens of context"
        f" {bytes_text(need.kv)}, the rest {bytes_text(need.sound + need.work)}), and there are"
        f" {bytes_text(have)}; {advice}"
    )

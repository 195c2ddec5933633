"""What a recipe will need before anything is begun: disk, memory to build, memory to run. No torch.

The figures are reckoned from sizes; docs/engines.md holds them against measured ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.sound_stream import POSITIONS_PER_SECOND, capacity_s
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines.pieces import Piece, Sizes, pieces, vocoder_pieces
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT

# Beside weights and caches: the process with its libraries, and what is computed on the way, of
# which a picture's attention is the most.
PROCESS = 350 * 10**6
SCORES = 4  # arrays of attention scores that are in memory at once
# Building an engine takes so many times the graph's weights.
TENSORRT_BUILD = 3.4
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
    all_pieces: list[tuple[Piece, Sizes]] = []
    if recipe.runtimes != {"torch"}:  # for which nothing is built
        all_pieces += [(piece, config) for piece in pieces(config, recipe)]
    if vocoder is not None and recipe.vocoder.runtime != "torch":
        all_pieces += [(piece, vocoder) for piece in vocoder_pieces(recipe)]
    for piece, sizes in all_pieces:
        nbytes = piece.nbytes(sizes)
        if piece.runtime in TENSORRT:
            nbytes *= 2  # the graph, and the engine that is made of it
        memory = build_memory(piece, sizes)
        found.append(PlannedPiece(piece, nbytes, memory, piece.name in built))
    return Planned(tuple(found), run_memory(config, recipe, vocoder=vocoder))


def build_memory(piece: Piece, sizes: Sizes) -> int:
    """Bytes that building a piece takes at once, its engine too."""
    memory = piece.memory(sizes)
    if piece.runtime in TENSORRT:
        memory = max(memory, int(TENSORRT_BUILD * piece.nbytes(sizes)))
    return memory


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


def vocoder_is_beside(recipe: Recipe) -> bool:
    """Whether the vocoder takes of the same memory as the language model."""
    return recipe.on_card(recipe.vocoder.runtime) == recipe.on_card(recipe.llm.runtime)


def run_memory(
    config: ModelConfig, recipe: Recipe, kv_tokens: int = 0, vocoder: VocoderConfig | None = None
) -> RunMemory:
    """Of a network with a context of so many tokens; 0: all that the recipe allows.

    Args:
        recipe: one for torch says its precision and its device, `auto` does not.
        vocoder: counted where it takes of the same memory.
    """
    on_card = recipe.on_card(recipe.llm.runtime)
    in_torch = recipe.runtimes == {"torch"}
    half = recipe.precision != "fp32" if in_torch else on_card
    value = 2 if half else 4
    tokens = kv_tokens or recipe.kv_capacity
    weights = _torch_weights(config, recipe) if in_torch else _weights(config, recipe, on_card)
    audio = config.audio
    positions = capacity_s(audio) * POSITIONS_PER_SECOND
    # Two caches, because one begins before the other ends; see `model.sound_stream`.
    sound = 2 * 2 * audio.layers * audio.hidden * positions * value
    patches = (config.slices.resolution // config.vision.patch) ** 2
    work = PROCESS + SCORES * config.vision.heads * patches * patches * value
    kv = config.llm.kv_values_per_token * tokens * value
    where = "card" if on_card else "memory"
    speaks = 0
    if vocoder is not None and vocoder_is_beside(recipe):
        speaks = vocoder_memory(vocoder, recipe)
    return RunMemory(where, weights, kv, tokens, sound, work, speaks)


def _weights(config: ModelConfig, recipe: Recipe, on_card: bool) -> int:
    """Of the files that go where the language model is; tables are read where they lie."""
    return sum(
        piece.nbytes(config)
        for piece in pieces(config, recipe)
        if not piece.is_table and recipe.on_card(piece.runtime) == on_card
    )


def _torch_weights(config: ModelConfig, recipe: Recipe) -> int:
    """Tables among them; of four bits are the language model's matrices alone."""
    total = 0
    for piece in pieces(config, recipe):
        four = recipe.precision == "int4" and piece.part == "llm" and not piece.is_table
        plain = "fp32" if recipe.precision == "fp32" else "fp16"
        dtype = "float32" if plain == "fp32" else "float16"
        total += replace(piece, precision="int4" if four else plain, dtype=dtype).nbytes(config)
    return total

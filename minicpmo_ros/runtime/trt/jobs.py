"""Which engines a recipe needs, and how each is built of its graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines.build import Job
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.pieces import ENGINE_FILE, GRAPH_FILE, Piece, Sizes
from minicpmo_ros.runtime.engines.planning import build_memory
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.trt.builder import assert_packed, build
from minicpmo_ros.runtime.trt.card import Card
from minicpmo_ros.runtime.trt.library import Library, library
from minicpmo_ros.runtime.trt.profiles import (
    Profile,
    audio_profiles,
    decoder_profiles,
    head_profiles,
    turn_profiles,
    vision_profiles,
    vocoder_profiles,
)

# Writing a graph takes longer than building an engine of it.
WORK = 0.5


def engine_job(
    piece: Piece, fingerprint: str, config: Sizes, recipe: Recipe, cache: EngineCache
) -> Job:
    """The engine of a piece whose graph is in the cache when the job is done.

    Raises:
        EngineError: the library is not installed; or it builds for the card of its machine alone,
            and there is none.
    """
    made_by = library(piece.runtime)
    wanted = profiles(piece, config, recipe)
    # Not those of this machine: the same recipe means the same engine on every machine, and finds
    # what another built.
    targets = recipe.targets or made_by.usual_targets if made_by.names_targets else ()
    graph = piece.key(fingerprint)
    about = {**graph.shapes, "profiles": [dict(one) for one in wanted]}
    target = "+".join(targets) or Card().board
    # That of the graph as well: an engine of an old graph is another one, and of no use any more.
    version = f"{made_by.version}, graph {graph.version}"
    key = replace(graph, shapes=about, runtime=piece.runtime, version=version, target=target)

    def make(folder: Path, advance: Callable[[float], None]) -> None:
        entry = cache.find(graph)
        if entry is None:
            raise EngineError(f"the graph of {piece.name} is not there; build it first")
        file, engine = entry.folder / GRAPH_FILE, folder / ENGINE_FILE
        timing = cache.folder / f"timing-{made_by.name}-{made_by.version}.cache"
        build(
            made_by,
            file,
            engine,
            wanted,
            targets=targets,
            timing_cache=timing,
            exact=piece.dtype == "float32",
            progress=advance,
        )
        if piece.precision == "int4":
            assert_packed(file, engine)

    work = WORK * (piece.parameters(config) or 1)
    return Job(key, make, piece.nbytes(config), work, build_memory(piece, config))


def profiles(piece: Piece, config: Sizes, recipe: Recipe) -> list[Profile]:
    """The sizes that a piece's engine is to take."""
    if isinstance(config, VocoderConfig):
        return vocoder_profiles(piece.name, config.flow)
    if piece.name == "vision":
        return vision_profiles(recipe.vision.patches)
    if piece.name == "audio":
        return audio_profiles(config.audio.max_positions)
    if piece.name == "llm.turn":
        return turn_profiles(config.llm.layers * config.llm.kv_heads)
    if piece.name.endswith(".head"):
        return head_profiles()
    is_llm = piece.part == "llm"
    capacity = recipe.kv_capacity if is_llm else config.speech_sizes().max_positions
    prefill = min(recipe.llm.prefill, capacity)
    return decoder_profiles(prefill, capacity, packed=piece.precision == "int4")


class TrtLoader:
    """Stages of engines, on the first card."""

    def __init__(self, runtime: str) -> None:
        self._library: Library = library(runtime)
        self._card = Card()

    def stage(self, file: Path) -> object:
        from minicpmo_ros.runtime.trt.stage import TrtStage

        return TrtStage(self._library, self._card, file)

    def cached(
        self,
        files: Sequence[tuple[Path, int]],
        sizes: tuple[int, int, float],
        turn: Path | None = None,
    ) -> object:
        from minicpmo_ros.runtime.trt.stage import TrtCachedStage

        return TrtCachedStage(self._library, self._card, files, *sizes, turn)

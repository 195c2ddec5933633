"""A network from a checkpoint and a recipe: what is not built yet is built, then it is loaded.

No torch is imported where everything is built and the recipe does not name it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.fingerprint import fingerprint
from minicpmo_ros.runtime import build
from minicpmo_ros.runtime.api import Network
from minicpmo_ros.runtime.cache import EngineCache
from minicpmo_ros.runtime.pieces import GRAPH_FILE, Piece, pieces
from minicpmo_ros.runtime.recipe import Recipe
from minicpmo_ros.runtime.recipe_rules import TENSORRT
from minicpmo_ros.runtime.staged import Reader, StagedNetwork, Voicing
from minicpmo_ros.runtime.stages import CachedStage, Stage
from minicpmo_ros.runtime.tables import Table

Progress = build.Progress
# Shares of the way: reading the checkpoint's bytes once, building, loading.
HASHED, BUILT = 0.1, 0.9


def load_network(
    directory: Path | str,
    recipe: Recipe,
    *,
    cache: EngineCache | None = None,
    threads: int = 0,
    progress: Progress = lambda what, share: None,
    say: build.Say = lambda text: None,
) -> Network:
    """Build what is missing, and load.

    Args:
        directory: of the checkpoint.
        threads: on a CPU, in place of the recipe's where it is not 0.
        progress: called often, with what is done and the share of all.

    Raises:
        CheckpointError: no checkpoint, or half of one.
        EngineError: a stage cannot be built or loaded; the message says which and why.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise CheckpointError(f"checkpoint {directory}: there is no such directory")
    threads = threads or recipe.threads
    if recipe.runtimes == {"torch"}:
        from minicpmo_ros.runtime.torch_runtime import TorchNetwork

        return TorchNetwork.load(
            directory,
            device=recipe.device,
            precision=recipe.precision,
            threads=threads,
            progress=progress,
        )
    cache = cache or EngineCache()
    folders = ensure(directory, recipe, cache, progress, say)
    return assemble(ModelConfig.load(directory), recipe, folders, threads, progress)


def ensure(
    directory: Path,
    recipe: Recipe,
    cache: EngineCache,
    progress: Progress = lambda what, share: None,
    say: build.Say = lambda text: None,
) -> dict[Piece, Path]:
    """Folders of all pieces, built where they are not there."""
    config = ModelConfig.load(directory)
    mark = fingerprint(
        directory,
        cache.fingerprints,
        lambda done, total: progress("reading the checkpoint", HASHED * done / max(total, 1)),
    )
    needed = pieces(config, recipe)
    jobs = build.graph_jobs(directory, mark, config, needed)
    span = BUILT - HASHED
    folders = build.run(
        jobs,
        cache,
        directory,
        lambda what, share: progress(f"building {what}", HASHED + span * share),
        say,
    )
    return dict(zip(needed, folders, strict=True))


def assemble(
    config: ModelConfig,
    recipe: Recipe,
    folders: dict[Piece, Path],
    threads: int = 0,
    progress: Progress = lambda what, share: None,
) -> StagedNetwork:
    """The network of files that are there."""
    loader = _Loader(config, recipe, folders, threads, progress)
    vision, audio = loader.stage("vision"), loader.cached("audio")
    llm = Reader(
        loader.cached("llm"),
        loader.stage("llm.head"),
        Table(loader.folder("llm.tables"), "tokens"),
        recipe.llm.prefill,
    )
    tables = loader.folder("speech.tables")
    speech = Reader(loader.cached("speech"), loader.stage("speech.head"), Table(tables, "codes"))
    projector = dict(np.load(tables / "projector.npz"))
    voicing = Voicing(Table(tables, "text"), projector)
    return StagedNetwork(config, vision, audio, llm, speech, voicing, _about(recipe, loader.nbytes))


class _Loader:
    """Stages by name, whatever runs them."""

    def __init__(
        self,
        config: ModelConfig,
        recipe: Recipe,
        folders: dict[Piece, Path],
        threads: int,
        progress: Progress,
    ) -> None:
        self._config, self._recipe, self._threads = config, recipe, threads
        self._folders = folders
        self._progress = progress
        self._loaded = 0
        self.nbytes = sum(
            file.stat().st_size
            for piece, folder in folders.items()
            if not piece.is_table
            for file in folder.iterdir()
        )

    def folder(self, name: str) -> Path:
        return next(folder for piece, folder in self._folders.items() if piece.name == name)

    def stage(self, name: str) -> Stage:
        piece = next(piece for piece in self._folders if piece.name == name)
        return self._runtime(piece.runtime).stage(piece, self._file(piece))

    def cached(self, part: str) -> CachedStage:
        """Of all files with layers of a part."""
        found = [piece for piece in self._folders if piece.part == part and piece.layers[1]]
        if part == "audio":
            whole = (0, self._config.audio.layers)
            found = [replace(piece, layers=whole) for piece in self._folders if piece.name == part]
        files = [(self._file(piece), piece.layers[1] - piece.layers[0]) for piece in found]
        return self._runtime(found[0].runtime).cached(part, files)

    def _file(self, piece: Piece) -> Path:
        self._loaded += 1
        share = BUILT + (1 - BUILT) * self._loaded / len(self._folders)
        self._progress(f"loading {piece.name}", min(share, 1.0))
        return self.folder(piece.name) / GRAPH_FILE

    def _runtime(self, name: str) -> Any:
        if name in TENSORRT:
            raise NotImplementedError
        return _OnnxRuntime(self._config, self._threads)


class _OnnxRuntime:
    def __init__(self, config: ModelConfig, threads: int) -> None:
        self._config, self._threads = config, threads

    def stage(self, piece: Piece, file: Path) -> Stage:
        from minicpmo_ros.runtime.ort import OrtStage

        return OrtStage(file, self._threads)

    def cached(self, part: str, files: list[tuple[Path, int]]) -> CachedStage:
        from minicpmo_ros.runtime.ort import OrtCachedStage

        return OrtCachedStage(files, *cache_sizes(self._config, part), self._threads)


def cache_sizes(config: ModelConfig, part: str) -> tuple[int, int, float]:
    """Heads of keys, their width, and the base of their rotation, of a part's caches."""
    if part == "audio":  # keys that are never moved have no rotation
        audio = config.audio
        return audio.heads, audio.hidden // audio.heads, 1.0
    decoder = config.llm if part == "llm" else config.speech
    return decoder.kv_heads, decoder.head_dim, decoder.rope_theta


def _about(recipe: Recipe, nbytes: int) -> str:
    where = ", ".join(sorted(recipe.runtimes))
    return f"recipe {recipe.name or 'of its own'} on {where}, files of {nbytes / 2**30:.2f} GiB"

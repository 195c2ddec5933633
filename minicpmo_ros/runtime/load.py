"""A network from a checkpoint and a recipe: what is not built yet is built, then it is loaded.

No torch is imported where everything is built and the recipe does not name it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from minicpmo_ros.errors import CheckpointError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.fingerprint import fingerprint
from minicpmo_ros.model.sums import check_sums
from minicpmo_ros.runtime.api import Network
from minicpmo_ros.runtime.engines import build
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.disk import check_disk
from minicpmo_ros.runtime.engines.host_memory import available_bytes
from minicpmo_ros.runtime.engines.pieces import (
    ENGINE_FILE,
    GRAPH_FILE,
    GRAPH_RUNTIME,
    Piece,
    Sizes,
)
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT
from minicpmo_ros.runtime.engines.room import check_making, check_memory, room_for
from minicpmo_ros.runtime.engines.shipped import ShippedEngines
from minicpmo_ros.runtime.jobs import Jobs, jobs
from minicpmo_ros.runtime.staged import Reader, StagedNetwork, Voicing
from minicpmo_ros.runtime.stages import CachedStage, Stage
from minicpmo_ros.runtime.tables import Table, read_arrays
from minicpmo_ros.runtime.vocoder_sizes import vocoder_beside

Progress = build.Progress
# Shares of the way: of building, the checkpoint's bytes are read once; of loading, what is missing
# is built.
HASHED, BUILT = 0.1, 0.9


def load_network(
    directory: Path | str,
    recipe: Recipe,
    *,
    cache: EngineCache | None = None,
    threads: int = 0,
    kv_capacity: int = 0,
    progress: Progress = lambda what, share: None,
    say: build.Say = lambda text: None,
) -> Network:
    """Build what is missing, and load.

    Args:
        directory: of the checkpoint.
        threads, kv_capacity: in place of the recipe's where they are not 0: threads on a CPU, and
            the context whose memory is asked for.
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
        from minicpmo_ros.runtime.torch_runtime import TorchNetwork, as_it_runs

        _check_torch_room(directory, as_it_runs(recipe, directory), cache, kv_capacity)
        return TorchNetwork.load(
            directory,
            device=recipe.device,
            precision=recipe.precision,
            threads=threads,
            progress=progress,
        )
    check_runtimes(recipe)
    cache = cache or EngineCache()
    files = ensure(
        directory,
        recipe,
        cache,
        lambda what, share: progress(what, BUILT * share),
        say,
        kv_capacity,
    )
    return assemble(ModelConfig.load(directory), recipe, files, threads, progress)


def ensure(
    directory: Path,
    recipe: Recipe,
    cache: EngineCache,
    progress: Progress = lambda what, share: None,
    say: build.Say = lambda text: None,
    kv_capacity: int = 0,
) -> dict[Piece, Path]:
    """Files of all pieces (of tables: folders): those that came with the checkpoint, or those of
    the cache, built where they are not there.

    Raises:
        CheckpointError, EngineError: see `load_network`; memory and disk are asked for first.
    """
    check_sums(directory)
    mark = fingerprint(
        directory,
        cache.fingerprints,
        lambda done, total: progress("reading the checkpoint", HASHED * done / max(total, 1)),
    )
    config = ModelConfig.load(directory)
    found = jobs(directory, mark, config, recipe, cache)
    return files_of(
        directory,
        found,
        cache,
        lambda what, share: progress(f"building {what}", HASHED + (1 - HASHED) * share),
        say,
        lambda own, waits: _check_room(
            directory, config, recipe, cache, own, waits, kv_capacity, progress, say
        ),
        lambda job: check_making(recipe, job.memory, available_bytes()),
    )


def check_ahead(
    directory: Path,
    recipe: Recipe,
    cache: EngineCache,
    mark: str,
    *,
    calibrated: bool,
    progress: Progress = lambda what, share: None,
) -> None:
    """Raise what `ensure` would before it builds anything, for what comes before it and takes long.

    mark: the checkpoint's fingerprint. calibrated: see `jobs.jobs`.

    Raises:
        EngineError: a library is missing, or there is too little memory or disk.
    """
    build.check_extras()
    config = ModelConfig.load(directory)
    found = jobs(directory, mark, config, recipe, cache, calibrated=calibrated)
    shipped = _shipped(directory, found)
    ours, waits = _ours([one for one in found if one[1].key.name not in shipped], cache)
    _check_room(directory, config, recipe, cache, ours, waits, progress=progress)


def files_of(
    directory: Path,
    found: Jobs,
    cache: EngineCache,
    progress: Progress,
    say: build.Say,
    check_room: Callable[[Jobs, bool], None],
    check_making: Callable[[build.Job], None] = lambda job: None,
) -> dict[Piece, Path]:
    """Files of all pieces, of jobs that make them where they are not there; see `ensure`.

    check_room: is given those that are to be in the cache, without those that others are building,
    and whether there are such: what they take of memory will be free again when it is waited for.
    Raises EngineError where they would not fit.
    check_making: the same, of one that is made now.
    """
    folders = _shipped(directory, found, say)
    own = [(piece, job) for piece, job in found if job.key.name not in folders]
    check_room(*_ours(own, cache))
    built = build.run([job for _, job in own], cache, directory, progress, say, check_making)
    folders |= {job.key.name: folder for (_, job), folder in zip(own, built, strict=True)}
    files = {}
    for piece, job in found:
        folder = folders[job.key.name]
        if piece.is_table:
            files[piece] = folder
        else:  # an engine comes behind the graph that it is made of, and takes its place
            is_graph = job.key.runtime == GRAPH_RUNTIME
            files[piece] = folder / (GRAPH_FILE if is_graph else ENGINE_FILE)
    return files


def _shipped(directory: Path, found: Jobs, say: build.Say = lambda text: None) -> dict[str, Path]:
    """Of those that came with the checkpoint, folders by the names of their keys."""
    shipped = ShippedEngines(directory)
    folders = {}
    for piece, job in found:
        # An engine is made of a graph in the cache.
        if piece.runtime not in TENSORRT and (folder := shipped.find(job.key, say)):
            folders[job.key.name] = folder
    return folders


def _ours(own: Jobs, cache: EngineCache) -> tuple[Jobs, bool]:
    """Those that nobody else is building now, and whether there are others."""
    ours = [(piece, job) for piece, job in own if not cache.is_being_built(job.key)]
    return ours, len(ours) < len(own)


def _check_room(
    directory: Path,
    config: ModelConfig,
    recipe: Recipe,
    cache: EngineCache,
    own: Jobs,
    waits: bool,
    kv_capacity: int = 0,
    progress: Progress = lambda what, share: None,
    say: build.Say = lambda text: None,
) -> None:
    """Raise EngineError before anything is begun that cannot end well.

    own, waits: see `files_of`. say: see `check_memory`.
    """
    there = {entry.name for entry in cache.entries()} if own else set()
    missing = [(piece, job) for piece, job in own if job.key.name not in there]
    to_build = 0 if waits else max((job.memory for _, job in missing), default=0)
    vocoder = vocoder_beside(
        directory,
        config,
        recipe,
        cache,
        lambda done, total: progress("reading the vocoder", HASHED * done / max(total, 1)),
    )
    room = room_for(recipe, recipe.llm.runtime)
    check_memory(config, recipe, room, to_build, available_bytes(), kv_capacity, vocoder, say)
    if missing:
        check_disk(cache.folder, sum(job.nbytes for _, job in missing), "what is to be built")


def _check_torch_room(
    directory: Path, recipe: Recipe, cache: EngineCache | None, kv_capacity: int
) -> None:
    """Raise EngineError before weights are loaded that do not fit."""
    config = ModelConfig.load(directory)
    vocoder = vocoder_beside(directory, config, recipe, cache or EngineCache())
    check_memory(config, recipe, room_for(recipe, "torch"), 0, 0, kv_capacity, vocoder)


def assemble(
    config: ModelConfig,
    recipe: Recipe,
    files: dict[Piece, Path],
    threads: int = 0,
    progress: Progress = lambda what, share: None,
) -> StagedNetwork:
    """The network of files that are there; see `ensure`."""
    loader = Loader(config, files, threads, progress, recipe.device)
    vision, audio = loader.stage("vision"), loader.cached("audio")
    llm = Reader(
        loader.cached("llm"),
        loader.stage("llm.head"),
        Table(loader.file("llm.tables"), "tokens"),
        recipe.llm.prefill,
    )
    about = _about(recipe, files)
    if config.speech is None:
        return StagedNetwork(config, vision, audio, llm, about=about)
    tables = loader.file("speech.tables")
    speech = Reader(
        loader.cached("speech"),
        loader.stage("speech.head"),
        Table(tables, "codes"),
        min(recipe.llm.prefill, config.speech.max_positions),
    )
    voicing = Voicing(Table(tables, "text"), read_arrays(tables / "projector.npz"))
    return StagedNetwork(config, vision, audio, llm, speech, voicing, about)


class Loader:
    """Stages by name, whatever runs them. device: of the recipe, see `runtime`."""

    def __init__(
        self,
        config: Sizes,
        files: dict[Piece, Path],
        threads: int,
        progress: Progress,
        device: str = "cpu",
    ) -> None:
        self._config: Any = config
        self._files, self._threads = files, threads
        self._device = device
        self._progress = progress
        self._loaded = 0
        self._runtimes: dict[str, Any] = {}

    @property
    def pieces(self) -> list[Piece]:
        return list(self._files)

    def file(self, name: str) -> Path:
        self._loaded += 1
        share = BUILT + (1 - BUILT) * self._loaded / len(self._files)
        self._progress(name, min(share, 1.0))
        return next(file for piece, file in self._files.items() if piece.name == name)

    def stage(self, name: str) -> Stage:
        piece = next(piece for piece in self._files if piece.name == name)
        found: Stage = self._runtime(piece.runtime).stage(self.file(name))
        return found

    def cached(self, part: str) -> CachedStage:
        """Of all files with layers of a part."""
        if part == "audio":
            found = [piece for piece in self._files if piece.name == part]
            counts = [self._config.audio.layers]
        else:
            found = [piece for piece in self._files if piece.part == part and piece.layers[1]]
            counts = [piece.layers[1] - piece.layers[0] for piece in found]
        files = [
            (self.file(piece.name), layers) for piece, layers in zip(found, counts, strict=True)
        ]
        return self._cached(found[0].runtime, part, files)

    def cached_file(self, piece: Piece) -> CachedStage:
        """Of one file alone."""
        layers = piece.layers[1] - piece.layers[0] or self._config.audio.layers
        return self._cached(piece.runtime, piece.part, [(self.file(piece.name), layers)])

    def _cached(self, runtime: str, part: str, files: list[tuple[Path, int]]) -> CachedStage:
        turn = f"{part}.turn"
        turns = any(piece.name == turn for piece in self._files)
        more = {"turn": self.file(turn)} if turns else {}
        stage: CachedStage = self._runtime(runtime).cached(files, self.cache_sizes(part), **more)
        return stage

    def cache_sizes(self, part: str) -> tuple[int, int, float]:
        """Heads of keys, their width, and the base of their rotation, of a part's caches."""
        if part == "audio":  # keys that are never moved have no rotation
            audio = self._config.audio
            return audio.heads, audio.hidden // audio.heads, 1.0
        decoder = self._config.llm if part == "llm" else self._config.speech_sizes()
        return decoder.kv_heads, decoder.head_dim, decoder.rope_theta

    def _runtime(self, name: str) -> Any:
        if name not in self._runtimes:
            self._runtimes[name] = runtime(name, self._threads, self._device)
        return self._runtimes[name]


def check_runtimes(recipe: Recipe) -> None:
    """Raise EngineError where a library or a card is missing: before building, for that takes
    minutes."""
    for name in sorted(recipe.runtimes):
        runtime(name, device=recipe.device)


def runtime(name: str, threads: int = 0, device: str = "cpu") -> Any:
    """What loads files: `ort.stages.OrtLoader`, `ort.device_stages.OrtDeviceLoader`, or
    `trt.jobs.TrtLoader`. device: of a recipe, for onnxruntime.

    Raises:
        EngineError: the library is not installed, or there is no card.
    """
    if name in TENSORRT:
        from minicpmo_ros.runtime.trt.jobs import TrtLoader

        return TrtLoader(name)
    if device != "cpu":
        from minicpmo_ros.runtime.ort.device_stages import OrtDeviceLoader

        return OrtDeviceLoader(device, threads)
    from minicpmo_ros.runtime.ort.stages import OrtLoader

    return OrtLoader(threads)


def _about(recipe: Recipe, files: dict[Piece, Path]) -> str:
    nbytes = sum(
        one.stat().st_size
        for piece, file in files.items()
        if not piece.is_table
        for one in (file, file.with_suffix(".bin"))
        if one.exists()
    )
    where = ", ".join(sorted(recipe.runtimes))
    return f"recipe {recipe.name or 'of its own'} on {where}, weights of {nbytes / 2**30:.2f} GiB"

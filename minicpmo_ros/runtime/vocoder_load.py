"""A vocoder from a checkpoint's assets and a recipe: what is not built yet is built, then loaded.

No torch is imported where everything is built and the recipe does not name it.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from minicpmo_ros.errors import CheckpointError, EngineError
from minicpmo_ros.model.vocoder import ASSETS, VocoderConfig, assets_of, vocoder_fingerprint
from minicpmo_ros.runtime.engines import build
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.disk import check_disk
from minicpmo_ros.runtime.engines.host_memory import available_bytes
from minicpmo_ros.runtime.engines.pieces import Piece, vocoder_pieces
from minicpmo_ros.runtime.engines.planning import build_memory
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT
from minicpmo_ros.runtime.engines.room import (
    check_build_memory,
    check_making,
    check_vocoder_memory,
    room_for,
)
from minicpmo_ros.runtime.jobs import Jobs
from minicpmo_ros.runtime.load import HASHED, files_of, runtime
from minicpmo_ros.runtime.vocoder import VocoderNetworks, load_vocoder
from minicpmo_ros.runtime.vocoder_sizes import vocoder_config
from minicpmo_ros.runtime.vocoder_stages import CONFIG, FlowTables, StagedFlow, StagedVocoder

Progress = build.Progress


def load_stages(
    directory: Path,
    recipe: Recipe,
    *,
    cache: EngineCache | None = None,
    threads: int = 0,
    progress: Progress = lambda what, share: None,
    say: build.Say = lambda text: None,
) -> VocoderNetworks:
    """The vocoder of a checkpoint, on the runtime that the recipe has for it.

    Args:
        directory: of the checkpoint; its assets lie in assets/token2wav.
        threads: on a CPU, in place of the recipe's where they are not 0.

    Raises:
        CheckpointError: there are no assets, or a file of them is damaged or of another network.
        EngineError: a stage cannot be built or loaded; the message says which and why.
    """
    assets = assets_of(directory)
    if assets is None:
        raise CheckpointError(
            f"{directory / ASSETS} has no vocoder, flow.pt and hift.pt; `minicpmo checkpoint fetch`"
            " brings them"
        )
    threads = threads or recipe.threads
    if recipe.vocoder.runtime == "torch":
        return _in_torch(directory, recipe, threads)
    runtime(recipe.vocoder.runtime, device=recipe.device)  # before minutes of building
    cache = cache or EngineCache()
    files = ensure_vocoder(directory, recipe, cache, progress, say)
    return assemble_vocoder(recipe, files, threads)


def ensure_vocoder(
    directory: Path,
    recipe: Recipe,
    cache: EngineCache,
    progress: Progress = lambda what, share: None,
    say: build.Say = lambda text: None,
) -> dict[Piece, Path]:
    """Files of all pieces of the vocoder (of tables: folders); none where the checkpoint has no
    assets, or where the recipe runs it in torch.

    Raises:
        CheckpointError, EngineError: see `load_stages`; memory and disk are asked for first.
    """
    assets = assets_of(directory)
    if assets is None or recipe.vocoder.runtime == "torch":
        return {}
    mark = vocoder_fingerprint(
        assets,
        cache.fingerprints,
        lambda done, total: progress("reading the vocoder", HASHED * done / max(total, 1)),
    )
    config = vocoder_config(directory, mark, recipe, cache)

    def check_room(own: Jobs, waits: bool) -> None:
        there = {entry.name for entry in cache.entries()} if own else set()
        missing = [(piece, job) for piece, job in own if job.key.name not in there]
        room = room_for(recipe, recipe.vocoder.runtime)
        check_vocoder_memory(config, recipe, room, say)
        if missing:
            to_build = 0 if waits else max(job.memory for _, job in missing)
            check_build_memory(recipe, to_build, available_bytes())
            check_disk(cache.folder, sum(job.nbytes for _, job in missing), "the vocoder")

    found = vocoder_jobs(directory, mark, config, recipe, cache)
    return files_of(
        directory,
        found,
        cache,
        lambda what, share: progress(f"building {what}", HASHED + (1 - HASHED) * share),
        say,
        check_room,
        lambda job: check_making(recipe, job.memory, available_bytes()),
    )


def vocoder_jobs(
    directory: Path, mark: str, config: VocoderConfig, recipe: Recipe, cache: EngineCache
) -> Jobs:
    """All that a recipe needs of a vocoder, in the order in which it can be built; see `jobs.jobs`.

    mark: of `vocoder_fingerprint`.
    """
    assets = directory / ASSETS
    found: Jobs = []
    for piece in vocoder_pieces(recipe):
        found.append((piece, _graph_job(assets, mark, config, piece)))
        if piece.runtime in TENSORRT:
            from minicpmo_ros.runtime.trt.jobs import engine_job

            found.append((piece, engine_job(piece, mark, config, recipe, cache)))
    return found


def assemble_vocoder(recipe: Recipe, files: dict[Piece, Path], threads: int = 0) -> VocoderNetworks:
    """The vocoder of files that are there; see `ensure_vocoder`."""
    by_name = {piece.name: file for piece, file in files.items()}
    (estimator,) = (piece for piece in files if piece.name == "flow.estimator")
    tables = by_name["flow.tables"]
    try:
        config = VocoderConfig.load(tables / CONFIG)
        found = FlowTables.load(tables)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise EngineError(
            f"{tables} is damaged ({error}); `minicpmo engines clean {tables.name}` removes it,"
            " then build it again"
        ) from None
    runs = runtime(recipe.vocoder.runtime, threads, recipe.device)
    flow = StagedFlow(
        config.flow,
        runs.stage(by_name["flow.encoder"]),
        runs.stage(by_name["flow.estimator"]),
        found,
        np.dtype(estimator.dtype),
    )
    hift = StagedVocoder(runs.stage(by_name["hift"]))
    about = f"vocoder on {recipe.vocoder.runtime}, flow in {recipe.vocoder.precision}"
    return VocoderNetworks(flow, hift, config.hift, about)


def _in_torch(directory: Path, recipe: Recipe, threads: int) -> VocoderNetworks:
    found = load_vocoder(directory, device=recipe.device, precision=recipe.vocoder.precision)
    if threads:
        import torch

        torch.set_num_threads(threads)
    return found


def _graph_job(assets: Path, mark: str, config: VocoderConfig, piece: Piece) -> build.Job:
    def make(folder: Path, advance: build.Advance) -> None:
        with build.extras("building"):
            import onnx_ir  # noqa: F401
            import onnxscript  # noqa: F401

            from minicpmo_ros.runtime.export.vocoder_weights import read_assets
        build.write_piece(read_assets(assets, piece.part), config, piece, folder, advance)

    weight = float(piece.parameters(config) or 1)
    memory = build_memory(piece, config)
    return build.Job(piece.key(mark), make, piece.nbytes(config), weight, memory)

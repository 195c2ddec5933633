"""`minicpmo bench engines --recipe NAME`: the network as a recipe builds and loads it, on a machine
that it is for."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from minicpmo_ros.bench import card
from minicpmo_ros.bench.figures import show
from minicpmo_ros.bench.random_pieces import random_read
from minicpmo_ros.bench.stages import PAST
from minicpmo_ros.duplex.config import DuplexConfig, WindowConfig
from minicpmo_ros.errors import ConfigError, EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.tiny import SIZES, config_json
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.build import Job, write_piece
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.disk import check_disk
from minicpmo_ros.runtime.engines.host_memory import available_bytes, peak_bytes
from minicpmo_ros.runtime.engines.pieces import Piece, pieces
from minicpmo_ros.runtime.engines.planning import planned
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT
from minicpmo_ros.runtime.jobs import Jobs
from minicpmo_ros.runtime.load import assemble, check_runtimes, ensure, files_of

LEAST_CAPACITY = 2048  # of which the units use 1,500
Report = Callable[[str, float], None]


def bench(
    name: str,
    size: str = "full",
    checkpoint: Path | None = None,
    threads: int = 0,
    json: Path | None = None,
) -> None:
    """Build what is missing, load it, measure, print, and with a path write the figures as JSON.

    Args:
        name: of the recipe, or its file.
        size: of a network with random weights, of SIZES; what is built of it is not kept.
        checkpoint: a directory; its network in the place of a random one, and what is built of it
            is kept where it always is.

    Raises:
        ConfigError: an unknown size or recipe, or one that runs in torch or has too small a
            context. CheckpointError, EngineError: see `load.load_network`.
    """
    wanted = recipe.load(name)
    check_recipe(wanted)
    if size not in SIZES:
        raise ConfigError(f"size '{size}': there are {', '.join(SIZES)}")
    check_runtimes(wanted)
    if checkpoint is not None and not checkpoint.is_dir():
        raise ConfigError(f"checkpoint {checkpoint}: there is no such directory")
    with Progress(transient=True) as bar, ExitStack() as stack:
        task = bar.add_task("files", total=1.0)

        def report(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)

        if checkpoint is None:
            config = ModelConfig.from_json(config_json(size))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="minicpmo_bench_"))
            files = random_files(config, wanted, Path(folder), report)
        else:
            config = ModelConfig.load(checkpoint)
            files = ensure(checkpoint, wanted, EngineCache(), report, bar.console.print)
        bar.update(task, description="units", completed=0, total=card.UNITS + 1)
        found = measure(config, wanted, files, threads, lambda: bar.advance(task, 1))
    full = checkpoint is not None or size == "full"
    prefix = "engines." if full else f"engines.{size}."
    conditions = {
        "recipe": name,
        "runtimes": ", ".join(sorted(wanted.runtimes)),
        "network": str(checkpoint) if checkpoint else f"random, {size}",
    }
    made = card.figures(found, f"{prefix}{wanted.name or 'own'}", full)
    show("minicpmo bench engines", made, json, conditions)


def check_recipe(wanted: Recipe) -> None:
    """Raise ConfigError for one that nothing is built of, or that has no room for the units."""
    if wanted.runtimes == {"torch"}:
        raise ConfigError(
            f"recipe '{wanted.name}' runs in torch, and nothing is built of it: `minicpmo bench"
            " model` measures that"
        )
    if wanted.kv_capacity < LEAST_CAPACITY:
        raise ConfigError(
            f"recipe '{wanted.name}': kv_capacity of {wanted.kv_capacity} has no room for what is"
            f" measured; it takes {LEAST_CAPACITY} tokens"
        )


def random_files(
    config: ModelConfig, wanted: Recipe, folder: Path, report: Report = lambda what, share: None
) -> dict[Piece, Path]:
    """Build all of a recipe from random weights, without a checkpoint on the disk; the files, as
    `load.ensure` gives them.

    Raises:
        EngineError: too little memory or disk, or a stage cannot be built.
    """
    plan = planned(config, wanted, set())
    check_disk(folder, plan.disk, "the random network")
    if (free := available_bytes()) and plan.build_memory > free:
        raise EngineError(
            f"building the random network takes {plan.build_memory / 1e9:.1f} GB of memory,"
            f" {free / 1e9:.1f} GB are free; --size takes {', '.join(SIZES)}"
        )
    cache = EngineCache(folder / "cache")
    mark = "random"
    read = random_read(config)
    jobs: Jobs = []
    for piece in pieces(config, wanted):

        def make(own: Path, advance: Callable[[float], None], piece: Piece = piece) -> None:
            write_piece(read, config, piece, own, advance)

        weight = float(piece.parameters(config) or 1)
        jobs.append((piece, Job(piece.key(mark), make, piece.nbytes(config), weight)))
        if piece.runtime in TENSORRT:
            from minicpmo_ros.runtime.trt.jobs import engine_job

            jobs.append((piece, engine_job(piece, mark, config, wanted, cache)))
    return files_of(folder, jobs, cache, report, lambda text: None, lambda own, waits: None)


def measure(
    config: ModelConfig,
    wanted: Recipe,
    files: dict[Piece, Path],
    threads: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Load the files as a robot does and live through some units.

    Returns:
        As `card.network_ms`; loading_s; and peak_gb, of this process, or on a card by how much less
        of it is free than before, at most, unit by unit (what others take meanwhile is in it).
    """
    on_card = wanted.on_card(wanted.llm.runtime)
    free = _card_memory(wanted) if on_card else lambda: -peak_bytes()
    before = free() if on_card else 0
    least = [before]

    def lived() -> None:
        least.append(free())
        advance()

    began = time.perf_counter()
    network = assemble(config, wanted, files, threads)
    loading_s = time.perf_counter() - began
    embeds = np.random.default_rng(0).standard_normal((PAST + card.PREFILL, config.llm.hidden))
    weights = sum(
        piece.nbytes(config) for piece in files if piece.part == "llm" and not piece.is_table
    )
    device: torch.device | None = torch.device("cpu")
    if on_card:
        name = wanted.device if wanted.device.startswith("cuda") else "cuda"
        device = torch.device(name) if torch.cuda.is_available() else None
    units = DuplexConfig(
        window=WindowConfig("off"),
        kv_capacity=wanted.kv_capacity,
        forced_listens=0,
        max_slices=1,
        speaks=config.speech is not None,
    )
    found = card.network_ms(network, embeds.astype(np.float32), weights, device, units, lived)
    return {**found, "loading_s": loading_s, "peak_gb": (before - min(least)) / 1e9}


def _card_memory(wanted: Recipe) -> Callable[[], int]:
    """Tells the bytes that are free on the recipe's card."""
    if wanted.runtimes & set(TENSORRT):
        from minicpmo_ros.runtime.trt import jobs

        first = jobs.Card()
        return lambda: first.free_bytes
    if not torch.cuda.is_available():
        raise EngineError(
            f"recipe '{wanted.name}' runs on a card, whose memory torch tells, and this torch finds"
            " none: install torch for CUDA"
        )
    return lambda: int(torch.cuda.mem_get_info(wanted.device)[0])

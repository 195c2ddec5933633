"""`minicpmo engines plan|build`: what a recipe needs, and makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from minicpmo_ros.errors import CheckpointError, ConfigError, EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.fingerprint import fingerprint
from minicpmo_ros.model.sums import write_sums
from minicpmo_ros.model.vocoder import (
    ASSETS,
    VocoderConfig,
    assets_of,
    vocoder_fingerprint,
)
from minicpmo_ros.runtime import load, vocoder_load
from minicpmo_ros.runtime.engines import planning, recipe
from minicpmo_ros.runtime.engines.build import Progress, extras
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_cleaning import fingerprints_of
from minicpmo_ros.runtime.engines.disk import bytes_text, free_bytes
from minicpmo_ros.runtime.engines.host_memory import available_bytes
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT
from minicpmo_ros.runtime.engines.room import check_memory, room_for
from minicpmo_ros.runtime.engines.shipped import ShippedEngines
from minicpmo_ros.runtime.jobs import Jobs, calibration_file, is_calibrated, jobs
from minicpmo_ros.runtime.vocoder_sizes import vocoder_config

if TYPE_CHECKING:
    from minicpmo_ros.runtime.export.calibration import Calibration
    from minicpmo_ros.runtime.export.layerwise import CalibrationSequence

Sequences = Callable[[], "list[CalibrationSequence]"]
"""Makes conversations to calibrate on; not asked where they are not needed."""


def plan(directory: Path, name: str) -> None:
    """Print what a recipe takes of disk and memory, and what of it is built already.

    Raises:
        CheckpointError, ConfigError, EngineError: the checkpoint or the recipe are of no use.
    """
    cache = EngineCache()
    wanted = recipe_to_build(name, directory)
    config = _config(directory)
    with progress_bar() as progress:
        mark = checkpoint_fingerprint(directory, cache, progress)
        vocoder, speaks = _vocoder(directory, wanted, cache, progress)
    built = _built(directory, mark, config, wanted, cache, vocoder, speaks)
    runs = _as_planned(directory, wanted)
    found = planning.planned(config, runs, built, vocoder)
    console = wide_console()
    console.print(f"{directory} with the recipe {wanted.name}: {wanted.description}")
    table = Table("part", "runs on", "precision", "disk", "memory to build", "built")
    for column in table.columns[3:5]:
        column.justify = "right"
    for one in found.pieces:
        piece = one.piece
        table.add_row(
            piece.name,
            piece.runtime or "numpy",
            piece.precision,
            bytes_text(one.nbytes),
            bytes_text(one.memory),
            "yes" if one.built else "",
        )
    console.print(table)
    if not is_calibrated(cache, mark, wanted):
        console.print(
            "not calibrated yet: `minicpmo engines build` does that first, on the recordings of"
            " --bag or the demo's scene, which takes a while"
        )
    free = bytes_text(free_bytes(cache.folder))
    console.print(f"to write: {bytes_text(found.disk)} in {cache.folder}, {free} free")
    console.print(
        f"to build: {bytes_text(found.build_memory)} of memory at once,"
        f" {bytes_text(available_bytes())} free"
    )
    run = found.run
    console.print(
        f"to run: {bytes_text(run.total)} of {run.where}: weights {bytes_text(run.weights)},"
        f" {run.kv_tokens} tokens of context {bytes_text(run.kv)}, sound"
        f" {bytes_text(run.sound)}, work {bytes_text(run.work)}"
        + (f", vocoder {bytes_text(run.vocoder)}" if run.vocoder else "")
    )
    if vocoder is None:
        console.print(f"no vocoder: {directory / ASSETS} has no flow.pt and hift.pt")
    elif not run.vocoder:
        takes = bytes_text(planning.vocoder_memory(vocoder, runs))
        console.print(f"the vocoder takes {takes} elsewhere, on {wanted.vocoder.runtime}")
    room = room_for(runs, runs.llm.runtime)
    if room.nbytes:
        console.print(f"for that, {room.about}")
    else:
        console.print(
            f"the memory where it will run is not known here ({room.about}): it must have"
            f" {bytes_text(run.total)} free"
        )
    to_build = found.build_memory
    check_memory(config, runs, room, to_build, available_bytes(), vocoder=vocoder)


def build(
    directory: Path,
    name: str,
    sequences: Sequences | None = None,
    *,
    recorded: bool = False,
    ship: bool = False,
) -> None:
    """Build what is not there yet; ask for memory and disk before.

    Args:
        sequences: to calibrate on, where the recipe wants it and it was not done yet.
        recorded: they are of recordings that the user named, and are calibrated on also where it
            was done on others.
        ship: put it beside the weights as well (`engines.shipped`), and write their SHA256SUMS.

    Raises:
        ConfigError: what the recipe makes cannot ship, or recordings are named for a recipe that
            does not calibrate.
        CheckpointError, EngineError: see `load.ensure`.
    """
    cache = EngineCache()
    wanted = recipe_to_build(name, directory)
    if ship:
        _check_ships(wanted)
    if recorded and wanted.scaling == "none":
        raise ConfigError(
            f"--bag has no effect: the recipe '{wanted.name}' has 'scaling: none' and calibrates on"
            " nothing; leave it out, or take 'scaling: awq'"
        )
    console = wide_console()
    with progress_bar() as progress:
        if wanted.scaling == "awq" and sequences is not None:
            calibrated(directory, wanted, cache, sequences, progress, recorded=recorded)
        files = {}
        if wanted.runtimes != {"torch"}:
            files = load.ensure(directory, wanted, cache, progress, console.print)
        files |= vocoder_load.ensure_vocoder(directory, wanted, cache, progress, console.print)
        current = fingerprints_of(directory, cache, lambda done, total: None) if ship else set()
    entries = {file if piece.is_table else file.parent for piece, file in files.items()}
    if ship:
        entries = set(ShippedEngines(directory).put(sorted(entries), current))
        console.print(f"{write_sums(directory)} lists all files of the checkpoint")
    nbytes = sum(file.stat().st_size for folder in entries for file in folder.iterdir())
    where = " and ".join(sorted({str(folder.parent) for folder in entries}))
    console.print(f"{len(entries)} files for {wanted.name} in {where}: {bytes_text(nbytes)}")


def _check_ships(wanted: recipe.Recipe) -> None:
    """Raise ConfigError for a recipe whose files would be of no use on another machine."""
    if on_card := {*wanted.runtimes, wanted.vocoder.runtime} & set(TENSORRT):
        raise ConfigError(
            f"the recipe '{wanted.name}' runs on {', '.join(sorted(on_card))}, whose engines belong"
            " to a kind of card and do not ship; take one for onnxruntime"
        )
    if wanted.scaling != "none":
        raise ConfigError(
            f"scaling: '{wanted.scaling}' of the recipe '{wanted.name}' needs its calibration"
            " wherever it is loaded, which does not ship; take 'scaling: none'"
        )


def calibrated(
    directory: Path,
    wanted: recipe.Recipe,
    cache: EngineCache,
    sequences: Sequences,
    progress: Progress,
    *,
    recorded: bool = False,
) -> Calibration:
    """What the language model's layers are scaled by: read, or found and kept.

    recorded: see `build`; what was found on the same recordings is read.

    Raises:
        CheckpointError, EngineError: see `load.ensure`, which comes next: what it needs is asked
            for here, before half an hour of calibrating.
    """
    with extras("calibrating"):
        from minicpmo_ros.model.checkpoint import Checkpoint
        from minicpmo_ros.runtime.export.calibrate import calibrate
        from minicpmo_ros.runtime.export.calibration import Calibration

    mark = checkpoint_fingerprint(directory, cache, progress)
    file = calibration_file(cache, mark)
    there = is_calibrated(cache, mark, wanted)
    if there and not recorded:
        return Calibration.load(file)

    def check(calibrated: bool) -> None:
        load.check_ahead(directory, wanted, cache, mark, calibrated=calibrated, progress=progress)

    anew = there

    def advance(done: int, of: int) -> None:
        nonlocal anew
        if anew:  # only now it is known that all that is scaled is built anew
            anew = False
            check(False)
        progress("calibrating", done / of)

    check(there)
    checkpoint = Checkpoint(directory)
    progress("reading what it would hear and see", 0.0)
    made = sequences()
    with cache.alone(file.name, "calibrates", lambda text: progress(text, 0.0)):
        return calibrate(
            lambda name: checkpoint.read(name).numpy(),
            checkpoint.config.llm,
            made,
            file,
            checkpoint=mark,
            progress=advance,
        )


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """What is being done and how far all of it is, on a terminal's stderr."""
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


def wide_console() -> Console:
    """As wide as the tables are, also in a pipe."""
    console = Console(soft_wrap=True, highlight=False)
    console.width = max(console.width, 120)
    return console


def recipe_to_build(name: str, directory: Path) -> recipe.Recipe:
    """One of which something is built, if only a checkpoint's vocoder; raises ConfigError or
    EngineError."""
    wanted = recipe.load(name)
    if wanted.runtimes != {"torch"}:
        return wanted
    said = f"the recipe '{wanted.name}' runs on torch, for which nothing is built"
    if wanted.vocoder.runtime == "torch":
        raise EngineError(said)
    if directory.is_dir() and assets_of(directory) is None:
        raise EngineError(
            f"{said} but the vocoder on {wanted.vocoder.runtime}, and {directory / ASSETS} has no"
            " flow.pt and hift.pt"
        )
    return wanted


def _as_planned(directory: Path, wanted: recipe.Recipe) -> recipe.Recipe:
    """With the precision that torch's `auto` means; raises EngineError where torch is missing."""
    if wanted.runtimes != {"torch"}:
        return wanted
    with extras("planning for torch"):
        from minicpmo_ros.runtime.torch_runtime import precision_for
    return recipe.in_torch(wanted, precision_for(wanted, directory), wanted.device)


def _config(directory: Path) -> ModelConfig:
    if not directory.is_dir():
        raise CheckpointError(f"checkpoint {directory}: there is no such directory")
    return ModelConfig.load(directory)


def checkpoint_fingerprint(directory: Path, cache: EngineCache, progress: Progress) -> str:
    return fingerprint(
        directory,
        cache.fingerprints,
        lambda done, total: progress("reading the checkpoint", done / max(total, 1)),
    )


def _vocoder(
    directory: Path, wanted: recipe.Recipe, cache: EngineCache, progress: Progress
) -> tuple[VocoderConfig | None, str]:
    """Of a checkpoint with assets, the sizes of its vocoder and its fingerprint."""
    assets = assets_of(directory)
    if assets is None:
        return None, ""
    mark = vocoder_fingerprint(
        assets,
        cache.fingerprints,
        lambda done, total: progress("reading the vocoder", done / max(total, 1)),
    )
    return vocoder_config(directory, mark, wanted, cache), mark


def _built(
    directory: Path,
    mark: str,
    config: ModelConfig,
    wanted: recipe.Recipe,
    cache: EngineCache,
    vocoder: VocoderConfig | None,
    speaks: str,
) -> set[str]:
    """Names of the pieces of which all is there. mark, speaks: the fingerprints."""
    there = {entry.name for entry in cache.entries()}
    shipped = ShippedEngines(directory).names()
    missing = set()
    found = set()
    try:
        scaled = is_calibrated(cache, mark, wanted)
        found_jobs: Jobs = []
        if wanted.runtimes != {"torch"}:
            found_jobs += jobs(directory, mark, config, wanted, cache, calibrated=scaled)
        if vocoder is not None and wanted.vocoder.runtime != "torch":
            found_jobs += vocoder_load.vocoder_jobs(directory, speaks, vocoder, wanted, cache)
    except EngineError:  # without the runtime, or without a card, nobody knows
        return set()
    for piece, job in found_jobs:
        found.add(piece.name)
        ships = piece.runtime not in TENSORRT and job.key.name in shipped
        if not ships and job.key.name not in there:
            missing.add(piece.name)
    return found - missing

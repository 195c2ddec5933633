"""`minicpmo engines`: what a recipe needs and makes, and what was built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minicpmo_ros.errors import EngineError

if TYPE_CHECKING:
    from rich.table import Table

    from minicpmo_ros.runtime.engines.cache import EngineCache
    from minicpmo_ros.runtime.engines.cache_entry import Entry
    from minicpmo_ros.runtime.engines.check_feeds import Recorded
    from minicpmo_ros.runtime.export.layerwise import CalibrationSequence

engines_app = typer.Typer(no_args_is_help=True, help="Engines: what stages are built into.")


Checkpoint = Annotated[
    Path, typer.Option("--checkpoint", help="Directory of the checkpoint, or nano.")
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="A recipe in engines/ (cpu, rtx, ...), or a file.")
]


@engines_app.command()
def plan(checkpoint: Checkpoint, recipe: RecipeName = "cpu") -> None:
    """Print the disk and memory that a recipe takes, to build and to run; nothing is begun."""
    from minicpmo_ros.runtime.engines import commands

    commands.plan(_directory(checkpoint), recipe)


@engines_app.command()
def build(
    checkpoint: Checkpoint,
    recipe: RecipeName = "cpu",
    bag: Annotated[
        list[Path],
        typer.Option(
            "--bag",
            help="Recording to calibrate on, for recipes with 'scaling: awq'; else, where it was"
            " not done yet, the demo's scene.",
        ),
    ] = [],  # noqa: B006 - typer wants it so, and it is only read
    ship: Annotated[
        bool,
        typer.Option(
            "--ship", help="Also copy it into DIRECTORY/engines, and write its SHA256SUMS."
        ),
    ] = False,
) -> None:
    """Build what a recipe needs and is not there; what was built before a stop is kept."""
    from minicpmo_ros.runtime.engines import commands

    checkpoint = _directory(checkpoint)
    sequences = _conversations(checkpoint, bag)
    commands.build(checkpoint, recipe, sequences, recorded=bool(bag), ship=ship)


@engines_app.command()
def check(
    checkpoint: Checkpoint,
    recipe: RecipeName = "cpu",
    report: Annotated[
        bool,
        typer.Option(
            "--report", help="Also what rounding costs in conversations: of --bag, else the demo's."
        ),
    ] = False,
    bag: Annotated[
        list[Path], typer.Option("--bag", help="Recording that is the input; else noise is.")
    ] = [],  # noqa: B006 - as above
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for every figure.", dir_okay=False)
    ] = None,
) -> None:
    """Hold each built file against torch on the same input; fails if one is too far off.

    Without the card that a recipe needs, torch alone is run: it tells what does not fit into half
    precision.
    """
    from minicpmo_ros.runtime.engines.check_command import check as run_check

    checkpoint = _directory(checkpoint)
    recordings = _recordings(checkpoint, bag)
    right = run_check(
        checkpoint,
        recipe,
        (lambda: [one.sequence for one in recordings()]) if report else None,
        recordings=recordings if bag else None,
        json_file=json_file,
    )
    if not right:
        raise typer.Exit(1)


@engines_app.command("list")
def list_engines(
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file, and say which are damaged.")
    ] = False,
) -> None:
    """Print what was built and lies in the cache; fails if something in it is damaged."""
    from rich.console import Console

    from minicpmo_ros.runtime.engines.cache import EngineCache
    from minicpmo_ros.runtime.engines.disk import bytes_text

    cache = EngineCache()
    broken = cache.broken()
    whole = [entry for entry in cache.entries() if entry.name not in broken]
    if verify:
        broken |= _damaged(whole)
        whole = [entry for entry in whole if entry.name not in broken]
    # Names in tables may be longer than a line of 80 letters: then the lines are.
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.width = max(console.width, 110)
    for source, entries in groupby(sorted(whole, key=_by_checkpoint), key=_by_checkpoint):
        console.print(source)
        console.print(_table(list(entries)))
    total = bytes_text(sum(entry.nbytes for entry in whole))
    console.print(f"{cache.folder}: {len(whole)} engines, {total}")
    for name, problem in broken.items():
        console.print(f"{name}: {problem}")
    if broken:
        raise typer.Exit(1)


@engines_app.command()
def clean(
    names: Annotated[
        list[str] | None, typer.Argument(help="Engines by name; none: all that are of no use.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all engines and calibrations, whatever for.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove engines of no use: damaged, unfinished, of older versions or changed checkpoints.

    What is being built stays.
    """
    from minicpmo_ros.runtime.engines.cache import EngineCache
    from minicpmo_ros.runtime.engines.cache_cleaning import calibrations, remove_calibrations
    from minicpmo_ros.runtime.engines.disk import bytes_text

    cache = EngineCache()
    scales = calibrations(cache) if everything else []
    if everything:
        reasons = {entry.name: "" for entry in cache.entries()} | cache.broken()
    elif names:
        reasons = dict.fromkeys(names, "")
    else:
        reasons = _useless(cache)
    for name, reason in (reasons | dict.fromkeys(scales, "")).items():
        typer.echo(f"{name}: {reason}" if reason else name)
    if dry_run:
        typer.echo(f"{len(reasons) + len(scales)} would go from {cache.folder}")
        return
    done = cache.clean(reasons)
    for name in done.locked:
        typer.echo(f"{name} stays: it is being built")
    if done.locked:
        for name in scales:  # what is being built may be scaled by them
            typer.echo(f"{name} stays: something is being built")
        scales = []
    nbytes = done.nbytes + remove_calibrations(cache, scales)
    count = len(done.removed) + len(scales)
    typer.echo(f"{count} removed from {cache.folder}, {bytes_text(nbytes)}")


def _directory(checkpoint: Path) -> Path:
    from minicpmo_ros.model.shipped import checkpoint_directory

    return checkpoint_directory(checkpoint)


def _conversations(checkpoint: Path, bags: list[Path]) -> Callable[[], list[CalibrationSequence]]:
    def made() -> list[CalibrationSequence]:
        from minicpmo_ros.replay.calibration import calibration_sequences

        return calibration_sequences(checkpoint, bags)

    return made


def _recordings(checkpoint: Path, bags: list[Path]) -> Callable[[], list[Recorded]]:
    """Read once, whoever asks for them."""

    @cache
    def made() -> list[Recorded]:
        from minicpmo_ros.replay.calibration import recorded_inputs

        return recorded_inputs(checkpoint, bags)

    return made


def _damaged(entries: list[Entry]) -> dict[str, str]:
    """By name, what is wrong with those whose bytes have changed."""
    from minicpmo_ros.runtime.engines.cache_entry import verify

    found = {}
    total = sum(entry.nbytes for entry in entries)
    done = 0

    with _bar("reading engines") as show:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            show(done, total)

        for entry in entries:
            try:
                verify(entry, advance)
            except EngineError as error:
                found[entry.name] = str(error)
    return found


def _useless(cache: EngineCache) -> dict[str, str]:
    from minicpmo_ros.runtime.engines.cache_cleaning import useless

    with _bar("reading checkpoints") as show:
        return useless(cache, show)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Over bytes that are done and those there are, on a terminal's stderr."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _by_checkpoint(entry: Entry) -> str:
    return entry.source or f"a checkpoint of fingerprint {entry.key.checkpoint[:12]}"


def _table(entries: list[Entry]) -> Table:
    from rich.table import Table

    from minicpmo_ros.runtime.engines.disk import bytes_text

    table = Table("engine", "precision", "runtime", "target", "size", "age")
    table.columns[4].justify = table.columns[5].justify = "right"
    for column in table.columns:
        column.overflow = "fold"
    for entry in entries:
        key = entry.key
        table.add_row(
            entry.name,
            key.precision,
            f"{key.runtime} {key.version}",
            key.target,
            bytes_text(entry.nbytes),
            _age((datetime.now(timezone.utc) - entry.made).total_seconds()),
        )
    return table


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "now"

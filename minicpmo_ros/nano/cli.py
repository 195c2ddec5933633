"""`minicpmo nano`: train the small checkpoint, measure it, and make what ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RECIPE = "nano"

nano_app = typer.Typer(
    no_args_is_help=True, help="The small checkpoint that ships: train it, measure it, pack it."
)


@nano_app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="Where the run is kept; it goes on from there.")],
    steps: Annotated[int, typer.Option(min=1, help="In all.")] = 8000,
    minutes: Annotated[float, typer.Option(min=0, help="Stop after; 0: when all is done.")] = 0,
    seed: Annotated[int, typer.Option(help="Everything follows from it.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Of one thread each, on a CPU.")] = 2,
    units: Annotated[int, typer.Option(min=4, help="Seconds a step and process.")] = 64,
    flite: Annotated[
        float, typer.Option(min=0, max=1, help="Share of flite's voices; needs flite.")
    ] = 0.12,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    start: Annotated[
        str, typer.Option(help="Weights to begin with: a directory, or nano; empty: random ones.")
    ] = "",
    skip: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the lessons left out: 0, or 0.7 with --start."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Of learning, at most: 1.5e-3, or 6e-4 with --start."),
    ] = None,
) -> None:
    """Train on episodes that are made as it goes; Ctrl-C saves, the same command goes on."""
    from minicpmo_ros.model.shipped import checkpoint_directory
    from minicpmo_ros.nano.processes import train as run
    from minicpmo_ros.nano.progress import Shown
    from minicpmo_ros.nano.sizes import copy_settings, write_settings
    from minicpmo_ros.nano.training import STATE, TrainingConfig

    start = str(checkpoint_directory(start)) if start else ""
    if not (folder / STATE).exists():
        # What a run has learned is of the tokens that it began with.
        if start:
            copy_settings(Path(start), folder)
        else:
            write_settings(folder)
    config = TrainingConfig(
        steps=steps,
        units_per_step=units,
        rate=rate if rate is not None else (6e-4 if start else 1.5e-3),
        seed=seed,
        processes=processes,
        flite=flite,
        start=start,
        skipped=skip if skip is not None else (0.7 if start else 0.0),
    )
    with Shown(folder, steps) as shown:
        run(folder, config, shown, device, minutes)


@nano_app.command()
def pack(
    run: Annotated[Path, typer.Argument(help="Folder of `minicpmo nano train`.")],
    directory: Annotated[Path, typer.Argument(help="Where the checkpoint is written.")],
    figures: Annotated[
        Path | None, typer.Option(help="Of `minicpmo nano eval --json`, for the model card.")
    ] = None,
) -> None:
    """Make a checkpoint of a run, with all that runs it without torch, and its checksums."""
    from minicpmo_ros.nano.packing import pack as write
    from minicpmo_ros.runtime.engines import commands

    write(run, directory, figures=figures)
    commands.build(directory, RECIPE, ship=True)


@nano_app.command(name="eval")
def evaluate(
    checkpoint: Annotated[str, typer.Option(help="A directory, or nano.")] = "nano",
    recipe: Annotated[str, typer.Option(help="What runs it; torch for fp32.")] = RECIPE,
    against: Annotated[
        str, typer.Option(help="Another recipe, or torch, to compare decisions with.")
    ] = "",
    episodes: Annotated[int, typer.Option(min=2, help="Of each kind, of 20 s each.")] = 60,
    only: Annotated[
        str, typer.Option(help="Kinds, with commas between; all if empty; none: no episodes.")
    ] = "",
    minutes: Annotated[float, typer.Option(min=0, help="Of the long session; 0: none.")] = 30,
    seed: Annotated[int, typer.Option(help="Of the episodes.")] = 0,
    wrong: Annotated[int, typer.Option(min=0, help="Show so many wrong answers a kind.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    phrases: Annotated[
        Path | None, typer.Option(help="What people said: lines 'name: words' of name.wav.")
    ] = None,
    sounds: Annotated[
        Path | None, typer.Option(help="Where those are; beside the list if not given.")
    ] = None,
    photographs: Annotated[
        Path | None, typer.Option(help="Folder of pictures of no world that it knows.")
    ] = None,
) -> None:
    """Measure it on voices, wordings, pictures and noises that training never had."""
    from minicpmo_ros.nano.eval_command import run

    run(
        *(checkpoint, recipe, against, episodes, only, minutes, seed, wrong, json),
        phrases=phrases,
        sounds=sounds,
        photographs=photographs,
    )

"""`minicpmo checkpoint`: fetch one, look into one, make a small random one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minicpmo_ros.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from types import ModuleType

    from rich.table import Table

    from minicpmo_ros.model.checkpoint import Checkpoint

checkpoint_app = typer.Typer(no_args_is_help=True, help="Weights: fetch, look into, make.")

Directory = Annotated[Path, typer.Argument(help="The checkpoint's directory.")]


@checkpoint_app.command()
def fetch(
    directory: Directory = Path("checkpoints/MiniCPM-o-4_5"),
    repository: Annotated[str, typer.Option(help="On the hub.")] = "openbmb/MiniCPM-o-4_5",
    revision: Annotated[
        str | None, typer.Option(help="Commit, tag or branch; else what was begun, else main.")
    ] = None,
) -> None:
    """Download the published checkpoint (about 20 GB), or the rest of it."""
    from minicpmo_ros.model import hub

    need_torch()  # before 20 GB and not after
    hub.fetch(directory, repository, revision, say=typer.echo)
    _open(directory)
    typer.echo(f"{directory} is whole")


@checkpoint_app.command()
def inspect(
    directory: Directory,
    context: Annotated[int, typer.Option(help="Tokens of context to reckon with.")] = 8192,
) -> None:
    """Print what is in a checkpoint, how large it is, and what it fits into."""
    from rich.console import Console

    from minicpmo_ros.model import contents
    from minicpmo_ros.model.shipped import checkpoint_directory

    directory = checkpoint_directory(directory)
    opened = _open(directory)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{directory}: MiniCPM-o 4.5, whole")
    if packing := opened.config.awq:
        matrices, size = contents.packed_matrices(opened)
        console.print(
            f"AWQ: {matrices} matrices lie in four bits, groups of {packing.group}, in"
            f" {_gb(size)}; they are read as plain ones"
        )
    console.print(_parts_table(opened))
    console.print(_needs_table(opened, context))
    files = contents.vocoder_files(directory)
    names = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in files)
    console.print(f"vocoder: {names or 'none; espeak-ng speaks its text'}")
    for name, size in contents.memories().items():
        fits = [
            need.precision
            for need in contents.needs(opened, context)
            if need.total <= size * contents.USABLE
        ]
        console.print(f"{name}, {size / 1e9:.0f} GB: fits {', '.join(fits) or 'none'}")


@checkpoint_app.command()
def tiny(
    directory: Directory,
    seed: Annotated[int, typer.Option(help="Every weight follows from it.")] = 0,
    size: Annotated[str, typer.Option(help="tiny, wide, quarter or full.")] = "tiny",
    vocab: Annotated[int, typer.Option(help="Tokens; the published one has 151748.")] = 1024,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    shards: Annotated[int, typer.Option(min=1, help="Files of weights.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write a random checkpoint in the published layout, with a tokenizer of its own."""
    torch = need_torch()
    from minicpmo_ros.model.tiny import write_checkpoint

    kinds = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16")}
    if dtype not in kinds:
        raise ConfigError(f"checkpoint: dtype is {dtype!r}; known are {', '.join(kinds)}")
    if directory.exists() and any(directory.iterdir()) and not force:
        raise ConfigError(f"{directory} is not empty; --force overwrites it")
    write_checkpoint(directory, seed, size, vocab, dtype=kinds[dtype], shards=shards)
    typer.echo(f"{directory}: {size}, seed {seed}, {vocab} tokens")


def _open(directory: Path) -> Checkpoint:
    """The checkpoint with its tokenizer, both held against its config."""
    need_torch()
    from minicpmo_ros.model.checkpoint import Checkpoint
    from minicpmo_ros.model.tokenizer import Tokenizer

    opened = Checkpoint(directory)
    Tokenizer(directory, opened.config.llm.vocab)
    return opened


def need_torch() -> ModuleType:
    """Torch and what reads checkpoints; raises CheckpointError where the extra is missing."""
    try:
        import safetensors
        import tokenizers
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"checkpoints need the extra `model` ({error}): pip install 'minicpmo_ros[model]'"
        ) from None
    del safetensors, tokenizers
    return torch


def _parts_table(checkpoint: Checkpoint) -> Table:
    from rich.table import Table

    from minicpmo_ros.model.contents import PRECISIONS, parts_of

    table = Table("part", "tensors", "parameters", *PRECISIONS)
    for column in table.columns[1:]:
        column.justify = "right"
    parts = parts_of(checkpoint)
    for part in parts:
        sizes = (_gb(part.bytes[precision]) for precision in PRECISIONS)
        table.add_row(part.name, str(part.tensors), f"{part.parameters / 1e6:.1f} M", *sizes)
    table.add_section()
    table.add_row(
        "all",
        str(sum(part.tensors for part in parts)),
        f"{sum(part.parameters for part in parts) / 1e6:.1f} M",
        *(_gb(sum(part.bytes[precision] for part in parts)) for precision in PRECISIONS),
    )
    return table


def _needs_table(checkpoint: Checkpoint, context: int) -> Table:
    from rich.table import Table

    from minicpmo_ros.model.contents import WORKING_BYTES, needs

    table = Table("to run in", "weights", f"KV of {context}", "vocoder", "work", "all", "fits a")
    for column in table.columns[1:]:
        column.justify = "right"
    for need in needs(checkpoint, context):
        sizes = (need.weights, need.kv, need.vocoder, WORKING_BYTES, need.total)
        capacity = f"{need.capacity_gb} GB memory" if need.capacity_gb else "no single memory"
        table.add_row(need.precision, *map(_gb, sizes), capacity)
    return table


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"

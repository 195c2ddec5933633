"""`minicpmo nano eval`: kinds of episodes in turn, then the figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from minicpmo_ros.bench.figures import Figure, show
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.shipped import checkpoint_directory
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano.evaluation import KINDS, Evaluation, figures
from minicpmo_ros.nano.long_session import drift, thirds
from minicpmo_ros.nano.measured import Measured, agreement
from minicpmo_ros.runtime.api import Network
from minicpmo_ros.runtime.engines import recipe as recipes
from minicpmo_ros.runtime.load import load_network


def network_of(directory: Path, recipe: str) -> Network:
    """Under a recipe, or in torch in full precision."""
    if recipe != "torch":
        return load_network(directory, recipes.load(recipe), threads=1)
    from minicpmo_ros.runtime.torch_runtime import TorchNetwork

    return TorchNetwork.load(directory, device="cpu", precision="fp32", threads=1)


def run(
    checkpoint: str,
    recipe: str,
    against: str,
    episodes: int,
    only: str,
    minutes: float,
    seed: int,
    wrong: int,
    json: Path | None,
) -> None:
    """See the command's options. Raises ConfigError for a kind that there is none of."""
    kinds = [one.strip() for one in only.split(",")] if only else list(KINDS)
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"only: there is no kind {kind!r}; there are {', '.join(KINDS)}")
    directory = checkpoint_directory(checkpoint)
    config = ModelConfig.load(directory)
    tokenizer = Tokenizer(directory, config.llm.vocab)
    evaluation = Evaluation(network_of(directory, recipe), tokenizer, config)
    measured: dict[str, Measured] = {}
    found = []
    with Progress(transient=True) as bar:
        for kind in kinds:
            measured[kind] = evaluation.measure_kind(kind, episodes, seed, _shown(bar, kind))
        if against and "espeak" in measured:
            other = Evaluation(network_of(directory, against), tokenizer, config)
            same = other.measure_kind("espeak", episodes, seed, _shown(bar, f"espeak, {against}"))
            agreed = agreement(measured["espeak"], same)
            found.append(Figure.at_least("nano.int4_agreement", agreed, 0.99))
        if minutes:
            long = evaluation.long(int(60 * minutes), seed, _shown(bar, f"{minutes:g} minutes"))
            found += list(drift(*thirds(long)))
    console = Console(soft_wrap=True, highlight=False)
    for kind, one in measured.items():
        for line in one.wrong[:wrong]:
            console.print(f"{kind}: {line}", markup=False)
    show(
        "minicpmo nano eval",
        [*figures(measured), *found],
        json,
        {"checkpoint": checkpoint, "recipe": recipe, "episodes": episodes, "seed": seed},
    )


def _shown(bar: Progress, name: str) -> Callable[[float], None]:
    """Shows a share of something as a bar of its own."""
    task = bar.add_task(name, total=1.0)
    return lambda share: bar.update(task, completed=share)

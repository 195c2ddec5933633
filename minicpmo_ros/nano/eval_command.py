"""`minicpmo nano eval`: kinds of episodes in turn, then the figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from minicpmo_ros.bench.figures import Figure, show
from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.shipped import checkpoint_directory
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.nano import recorded
from minicpmo_ros.nano.evaluation import KINDS, Evaluation, figures
from minicpmo_ros.nano.living import Turn, live, turns
from minicpmo_ros.nano.long_session import drift, thirds
from minicpmo_ros.nano.measured import Measured, agreement
from minicpmo_ros.runtime.api import Network
from minicpmo_ros.runtime.engines import recipe as recipes
from minicpmo_ros.runtime.load import load_network

NONE = "none"


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
    phrases: Path | None = None,
    sounds: Path | None = None,
    photographs: Path | None = None,
) -> None:
    """See the command's options.

    Raises:
        ConfigError: a kind that there is none of. InputError: recordings that are not there.
    """
    kinds = [one.strip() for one in only.split(",")] if only else list(KINDS)
    kinds = [] if kinds == [NONE] else kinds
    for kind in kinds:
        if kind not in KINDS:
            known = ", ".join((*KINDS, NONE))
            raise ConfigError(f"only: there is no kind {kind!r}; there are {known}")
    said = recorded.phrases(phrases, sounds or phrases.parent) if phrases else []
    shown = recorded.photographs(photographs) if photographs else []
    directory = checkpoint_directory(checkpoint)
    config = ModelConfig.load(directory)
    tokenizer = Tokenizer(directory, config.llm.vocab)
    network = network_of(directory, recipe)
    evaluation = Evaluation(network, tokenizer, config)

    def heard(sound: NDArray[np.float32], pixels: NDArray[np.uint8] | None) -> list[Turn]:
        return turns(live(network, tokenizer, sound, lambda unit: pixels))

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
        some = []
        if said:
            some.append(recorded.measure_phrases(heard, said, seed, _shown(bar, "phrases")))
        if shown:
            bars = _shown(bar, "photographs")
            some.append(recorded.measure_photographs(heard, shown, seed, bars))
    console = Console(soft_wrap=True, highlight=False)
    for kind, one in measured.items():
        for line in one.wrong[:wrong]:
            console.print(f"{kind}: {line}", markup=False)
    for of_recordings in some:
        found += of_recordings.figures()
        for line in of_recordings.wrong[:wrong]:
            console.print(line, markup=False)
    show(
        "minicpmo nano eval",
        [*figures(measured), *found],
        json,
        {
            "checkpoint": checkpoint,
            "recipe": recipe,
            "episodes": episodes,
            "seed": seed,
            "phrases": len(said),
            "photographs": len(shown),
        },
    )


def _shown(bar: Progress, name: str) -> Callable[[float], None]:
    """Shows a share of something as a bar of its own."""
    task = bar.add_task(name, total=1.0)
    return lambda share: bar.update(task, completed=share)

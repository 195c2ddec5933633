"""A network without a speech decoder, in torch and of files: all but speech is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minicpmo_ros.errors import BrainError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.picture import slices
from minicpmo_ros.runtime.api import Network
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.pieces import pieces
from minicpmo_ros.runtime.engines.planning import planned
from minicpmo_ros.runtime.load import load_network
from minicpmo_ros.runtime.torch_runtime import TorchNetwork
from tests import built_network
from tests.nano_network import nano_checkpoint, nano_json

__all__ = ["nano_checkpoint"]


@pytest.fixture(scope="module")
def theirs(nano_checkpoint: Path) -> Network:
    return TorchNetwork.load(nano_checkpoint)


@pytest.fixture(scope="module")
def ours(nano_checkpoint: Path, engines: Path) -> Network:
    fp32 = built_network.recipe("fp32")
    return load_network(nano_checkpoint, fp32, cache=EngineCache(engines))


def close(found: Any, expected: Any) -> bool:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return bool(np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", recipe.names())
def test_no_recipe_makes_files_of_speech(name: str) -> None:
    config = ModelConfig.from_json(nano_json())
    wanted = recipe.load(name)
    names = [piece.name for piece in pieces(config, wanted)]
    assert {"vision", "audio", "llm.00", "llm.head", "llm.tables"} <= set(names)
    assert not [name for name in names if name.startswith("speech")]
    assert [one.piece.name for one in planned(config, wanted, set()).pieces] == names


@pytest.mark.parametrize("runs", ["ours", "theirs"])
def test_whoever_asks_for_speech_is_told(runs: str, request: pytest.FixtureRequest) -> None:
    network: Network = request.getfixturevalue(runs)
    with pytest.raises(BrainError, match=r"no speech decoder.*converse with speaks=False"):
        network.speech()
    with pytest.raises(BrainError, match="no speech decoder"):
        network.condition([], [], text_ended=False, normalize=True)


def test_files_and_torch_see_hear_and_think_the_same(ours: Network, theirs: Network) -> None:
    random = np.random.default_rng(0)
    shown = slices(random.integers(0, 256, (96, 128, 3), dtype=np.uint8), 1, theirs.config.slices)
    sound = (random.standard_normal(16_000) * 0.1).astype(np.float32)
    assert close(ours.look(shown)[0], theirs.look(shown)[0])
    assert close(ours.ears().step(sound), theirs.ears().step(sound))
    mine, reference = ours.context(50), theirs.context(50)
    hidden = mine.read([1, 2, 3]), reference.read([1, 2, 3])
    assert close(mine.logits(hidden[0]), reference.logits(hidden[1]))


def test_torch_says_what_it_runs_on_without_it(nano_checkpoint: Path) -> None:
    found = TorchNetwork.load(nano_checkpoint, precision="bf16")
    assert found.about.startswith("torch on cpu, bfloat16, weights of ")
    assert set(found.stages) == {"vision", "audio", "llm"}

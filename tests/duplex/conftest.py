"""A small network for the tests of this room, which are skipped where there is no torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.built_network import built, engines
from tests.tiny_network import own_checkpoint, pytest_pycollect_makemodule, tiny_checkpoint

if TYPE_CHECKING:
    from minicpmo_ros.model.tokenizer import Tokenizer
    from minicpmo_ros.runtime.api import Network
    from minicpmo_ros.runtime.torch_runtime import TorchNetwork

AnyNetwork = TypeVar("AnyNetwork", bound="Network")

__all__ = [
    "built",
    "engines",
    "own_checkpoint",
    "pytest_pycollect_makemodule",
    "tiny_checkpoint",
]


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are multiplied sooner than threads are woken."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def with_small_pictures(network: AnyNetwork) -> AnyNetwork:
    network = copy.copy(network)
    config = network.config
    network.config = replace(config, slices=replace(config.slices, resolution=56))
    return network


@pytest.fixture(scope="session")
def network(tiny_checkpoint: Path) -> TorchNetwork:
    """A network that looks at pictures as 56 x 56 pixels, which is quick. Only to be used."""
    from minicpmo_ros.runtime.torch_runtime import TorchNetwork

    return with_small_pictures(TorchNetwork.load(tiny_checkpoint))


@pytest.fixture(scope="session")
def ours(built: Callable[[str], Network]) -> Network:
    """The same of files, under onnxruntime."""
    return with_small_pictures(built("fp32"))


@pytest.fixture(scope="session")
def rounded(built: Callable[[str], Network]) -> Network:
    """The same with four bits in the language model, eight in all else."""
    return with_small_pictures(built("cpu"))


@pytest.fixture(scope="session")
def tokenizer(tiny_checkpoint: Path) -> Tokenizer:
    from minicpmo_ros.model.tokenizer import Tokenizer

    return Tokenizer(tiny_checkpoint)

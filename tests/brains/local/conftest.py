"""A random network that says what a test wants, for the tests of this room, which are skipped where
there is no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.built_network import engines
from tests.tiny_network import own_checkpoint, pytest_pycollect_makemodule, tiny_checkpoint

if TYPE_CHECKING:
    from minicpmo_ros.brains.local import LocalBrain
    from minicpmo_ros.model.tokenizer import Tokenizer
    from tests.directed_network import DirectedNetwork

__all__ = ["engines", "own_checkpoint", "pytest_pycollect_makemodule", "tiny_checkpoint"]


@pytest.fixture(scope="package")
def tokenizer(tiny_checkpoint: Path) -> Tokenizer:
    from minicpmo_ros.model.tokenizer import Tokenizer

    return Tokenizer(tiny_checkpoint)


@pytest.fixture
def prompter(tiny_checkpoint: Path, tokenizer: Tokenizer) -> DirectedNetwork:
    """The network, which looks at pictures as 56 x 56 pixels: that is quick."""
    from minicpmo_ros.runtime.torch_runtime import TorchNetwork
    from tests.directed_network import DirectedNetwork

    network = TorchNetwork.load(tiny_checkpoint)
    config = network.config
    network.config = replace(config, slices=replace(config.slices, resolution=56))
    return DirectedNetwork(network, tokenizer)


@pytest.fixture
def make(prompter: DirectedNetwork, tokenizer: Tokenizer) -> Callable[..., LocalBrain]:
    """A local brain over it that listens first to nobody; settings as the omni node has them."""
    from minicpmo_ros.brains.build import OmniSettings, make_brain
    from minicpmo_ros.brains.local import LocalBrain
    from tests.brains.local.robot import Tones

    small = {"kv_capacity": 1024, "window_high_tokens": 900, "window_low_tokens": 600}

    def made(synthesiser: Any = Tones(), **settings: Any) -> LocalBrain:  # noqa: B008
        wanted = {"forced_listens": 0, **small, **settings}
        brain = make_brain(OmniSettings(brain="local", fallback="none", **wanted), None)
        assert isinstance(brain, LocalBrain)
        return LocalBrain(brain.config, synthesiser, lambda brain: (prompter, tokenizer))

    return made

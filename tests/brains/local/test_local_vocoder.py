"""What runs the local brain's vocoder is what its recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minicpmo_ros.brains.build import OmniSettings, make_brain
from minicpmo_ros.brains.local import LocalBrain, voices
from minicpmo_ros.brains.local.telling import Telling
from minicpmo_ros.runtime.engines.recipe import load


@pytest.mark.parametrize("recipe", ["", "cpu"])
def test_the_recipe_goes_on_to_the_vocoder(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[Path, dict[str, Any]]] = []
    monkeypatch.setattr(voices, "load_vocoder", lambda *given, **how: found.append((*given, how)))
    wanted = OmniSettings(
        brain="local", checkpoint="robot", recipe=recipe, threads=3, fallback="none"
    )
    brain = make_brain(wanted, None)
    assert isinstance(brain, LocalBrain)
    told: list[tuple[str, float]] = []
    voices.load_networks(
        Path("robot"), brain.config, Telling(lambda what, share: told.append((what, share)))
    )
    ((directory, how),) = found
    assert directory == Path("robot")
    assert how["recipe"] == (load(recipe) if recipe else None)
    assert (how["device"], how["threads"]) == (brain.config.device, 3)
    # How its building goes on: behind the network's.
    how["progress"]("building hift", 0.5)
    how["say"]("waiting for process 7")
    assert told == [("building hift", 0.9), ("waiting for process 7", 0.9)]

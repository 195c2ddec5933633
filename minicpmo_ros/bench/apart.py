"""Networks of random weights from files, each measured in a process of its own (`bench.whole`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minicpmo_ros.bench.process import measured_by
from minicpmo_ros.bench.random_vocoder import write_assets
from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.export.vocoder_weights import read_config
from minicpmo_ros.runtime.vocoder_load import ensure_vocoder

Found = dict[str, float]
Advance = Callable[[], None]


def measured(spec: dict[str, Any], advance: Advance, engines: Path | None = None) -> Found:
    """What `whole.measure` finds.

    Args:
        spec: see there.
        advance: called with every unit.
        engines: the cache of built files; None: the usual one.

    Raises:
        EngineError: the process failed, with its last words.
    """
    file = Path(spec["folder"]) / "spec.json"
    file.write_text(json.dumps(spec))
    module = "minicpmo_ros.bench.whole"
    return measured_by(module, file, "the whole network", advance, engines)


def own_voice(
    spec: dict[str, Any], flow: FlowConfig, hift: HiftConfig, voice: int, advance: Advance
) -> Found:
    """What `whole.measure_own_voice` finds, with a random vocoder of these sizes that is built
    below the spec's folder. voice: tokens of the voice that it speaks in."""
    directory = Path(spec["folder"]) / "voice"
    directory.mkdir()
    read_config(write_assets(directory, flow, hift))  # which also converts them
    engines = directory / "engines"
    ensure_vocoder(directory, recipe.of(spec["recipe"]), EngineCache(engines))
    return measured(spec | {"assets": str(directory), "voice": voice}, advance, engines)

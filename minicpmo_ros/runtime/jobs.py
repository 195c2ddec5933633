"""What is to be built of a checkpoint's network for a recipe, and its scales. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.fingerprint import sha256
from minicpmo_ros.runtime.engines import build
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.pieces import Piece, pieces
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.engines.recipe_rules import TENSORRT

if TYPE_CHECKING:
    from minicpmo_ros.runtime.export.calibration import Calibration

Jobs = list[tuple[Piece, build.Job]]


def jobs(
    directory: Path,
    mark: str,
    config: ModelConfig,
    recipe: Recipe,
    cache: EngineCache,
    *,
    calibrated: bool = True,
) -> Jobs:
    """All that a recipe needs of a checkpoint, in the order in which it can be built.

    Args:
        mark: the checkpoint's fingerprint.
        calibrated: False before a calibration is made, whose scales nobody knows: what they are
            for is then not found among what is built.

    Raises:
        EngineError: a runtime is not installed, or a calibration is asked for and was not made.
    """
    found: Jobs = []
    scaled_by = calibration_file(cache, mark) if recipe.scaling == "awq" else None
    digest = ""
    if scaled_by:
        digest = _digest(scaled_by) if calibrated else "not made"
    for piece in pieces(config, recipe, digest):
        found.append((piece, build.graph_job(directory, mark, config, piece, scaled_by)))
        if piece.runtime in TENSORRT:
            from minicpmo_ros.runtime.trt.jobs import engine_job

            found.append((piece, engine_job(piece, mark, config, recipe, cache)))
    return found


def calibration_file(cache: EngineCache, mark: str) -> Path:
    """Where the scales of a checkpoint's language model lie, once they were found."""
    return cache.folder / f"calibration-{mark[:16]}.npz"


def is_calibrated(cache: EngineCache, mark: str, recipe: Recipe) -> bool:
    """Whether a recipe's scales of a checkpoint were found, or it has none."""
    # os.path: where a folder may not be looked into, nothing is found; who writes there tells it.
    return recipe.scaling == "none" or os.path.exists(calibration_file(cache, mark))  # noqa: PTH110


def calibration_of(cache: EngineCache, mark: str) -> Calibration:
    """The scales; raises EngineError where there are none."""
    from minicpmo_ros.runtime.export.calibration import Calibration

    file = calibration_file(cache, mark)
    _digest(file)
    return Calibration.load(file)


def _digest(file: Path) -> str:
    try:
        return sha256(file)
    except OSError:
        raise EngineError(
            f"the recipe asks for 'scaling: awq', and {file} is not there: run `minicpmo engines"
            " build` with the same recipe and recordings of the robot's own (--bag), or take"
            " 'scaling: none'"
        ) from None

"""How large a checkpoint's vocoder is, before it is loaded.

No torch is imported where it was built or converted before.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from minicpmo_ros.errors import EngineError, MinicpmoError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.vocoder import ASSETS, VocoderConfig, assets_of, vocoder_fingerprint
from minicpmo_ros.runtime.engines import build
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.pieces import vocoder_pieces
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.engines.shipped import ShippedEngines
from minicpmo_ros.runtime.vocoder_stages import CONFIG


def vocoder_beside(
    directory: Path,
    config: ModelConfig,
    recipe: Recipe,
    cache: EngineCache,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> VocoderConfig | None:
    """Of the vocoder that will be loaded after the network; None where none will be, also where its
    files are of no use: who loads it says why, and the network runs without it.

    progress: of reading its bytes for the first time, done and of all.
    """
    assets = assets_of(directory)
    if config.speech is None or assets is None:
        return None
    try:
        mark = vocoder_fingerprint(assets, cache.fingerprints, progress)
        return vocoder_config(directory, mark, recipe, cache)
    except MinicpmoError:
        return None


def vocoder_config(directory: Path, mark: str, recipe: Recipe, cache: EngineCache) -> VocoderConfig:
    """Of the assets' networks: what was built of them tells it, or what they were converted to;
    else they are read, for which torch is needed.

    Raises:
        CheckpointError: see `vocoder_load.load_stages`. EngineError: torch is missing.
    """
    (tables,) = (piece for piece in vocoder_pieces(recipe) if piece.is_table)
    key = tables.key(mark)
    folders = [ShippedEngines(directory).folder]
    with suppress(EngineError):  # what ships is of use also where there is no folder for engines
        folders.append(cache.folder)
    for folder in folders:
        try:
            return VocoderConfig.load(folder / key.name / CONFIG)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    assets = directory / ASSETS
    if (found := VocoderConfig.of_conversions(assets)) is not None:
        return found
    with build.extras("reading the vocoder for the first time"):
        from minicpmo_ros.runtime.export.vocoder_weights import read_config
    return read_config(assets)

"""Networks of files under onnxruntime, for the rooms whose tests hold them against torch: their
conftest imports these fixtures, beside those of `tests.tiny_network`.

All rooms build into one folder, so that in a run of all tests everything is built once. Where the
extra 'export' is missing, tests that ask for these are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from minicpmo_ros.runtime.api import Network
    from minicpmo_ros.runtime.engines.recipe import Recipe

# One layer a file, so that there is more than one; steps of fewer tokens than a prompt has.
FP32 = """
    precision: fp32
    threads: 1
    llm: {layers_per_file: 1, embeddings: fp32, prefill: 64}
    speech: {embeddings: fp32}
"""


def recipe(name: str) -> Recipe:
    """One that comes with the package, on one thread; or "fp32", in single precision throughout."""
    import yaml

    from minicpmo_ros.runtime.engines import recipe

    if name == "fp32":
        return recipe.of({"name": name, **yaml.safe_load(FP32)})
    return replace(recipe.load(name), threads=1)


def write_recipe(file: Path, **keys: Any) -> Path:
    """The recipe "fp32" as a file of one's own, with some keys more or other ones."""
    import yaml

    file.write_text(yaml.safe_dump({**yaml.safe_load(FP32), **keys}))
    return file


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of all that was built. Tests may build more in it, and spoil nothing."""
    pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
    pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
    return tmp_path_factory.getbasetemp() / "engines"


@pytest.fixture(scope="session")
def built(tiny_checkpoint: Path, engines: Path) -> Callable[[str], Network]:
    """Gives the tiny network by the name of its recipe, see `recipe`. Only to be used."""
    from minicpmo_ros.runtime.engines.cache import EngineCache
    from minicpmo_ros.runtime.load import load_network

    loaded: dict[str, Network] = {}

    def network(name: str) -> Network:
        if name not in loaded:
            cache = EngineCache(engines)
            loaded[name] = load_network(tiny_checkpoint, recipe(name), cache=cache)
        return loaded[name]

    return network

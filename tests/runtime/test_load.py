"""From a checkpoint and a recipe to a network: what is built, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.load import ensure, load_network
from tests import built_network
from tests.runtime.quick_export import Writer, cache, writer

if TYPE_CHECKING:
    from minicpmo_ros.runtime.api import Network

__all__ = ["cache", "writer"]

FP32 = built_network.recipe("fp32")
# In the order in which they are built.
PIECES = [
    "vision", "audio", "llm.00", "llm.01", "llm.head", "llm.tables",
    "speech", "speech.head", "speech.tables",
]  # fmt: skip


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), MemoryError(), EngineError("no")])
def test_a_build_that_was_cut_off_goes_on_where_it_stopped(
    stop: BaseException, tiny_checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    writer.stop = stop
    with pytest.raises(type(stop)):
        ensure(tiny_checkpoint, FP32, cache)
    assert writer.again() == PIECES[:3]
    assert [entry.key.stage for entry in cache.entries()] == ["audio", "vision"]
    assert cache.broken() == {}
    writer.stop = None
    files = ensure(tiny_checkpoint, FP32, cache)
    assert writer.again() == PIECES[2:]
    assert [piece.name for piece in files] == PIECES
    assert all(file.exists() for file in files.values())
    assert ensure(tiny_checkpoint, FP32, cache) == files
    assert writer.again() == []


def test_progress_only_grows(tiny_checkpoint: Path, cache: EngineCache, writer: Writer) -> None:
    told: list[tuple[str, float]] = []
    ensure(tiny_checkpoint, FP32, cache, lambda *one: told.append(one))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] == 1
    for name in PIECES:  # each has its part of the way
        own = [share for what, share in told if what == f"building {name}"]
        assert own[-1] > own[0]
    assert told[0][0] == "reading the checkpoint"


def test_progress_of_what_is_built_only_grows_and_ends_at_one(
    tiny_checkpoint: Path, engines: Path, built: Callable[[str], Network]
) -> None:
    built("fp32")
    told: list[float] = []
    load_network(
        tiny_checkpoint,
        FP32,
        cache=EngineCache(engines),
        progress=lambda what, share: told.append(share),
    )
    assert told == sorted(told)
    assert told[-1] == 1


def test_the_same_bytes_elsewhere_are_the_same_checkpoint(
    tiny_checkpoint: Path, own_checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    before = ensure(tiny_checkpoint, FP32, cache)
    writer.again()
    assert ensure(own_checkpoint, FP32, cache) == before
    assert writer.again() == []


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_what_has_changed_is_built_anew(
    name: str, tiny_checkpoint: Path, own_checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    before = ensure(tiny_checkpoint, FP32, cache)
    file = own_checkpoint / name
    content = bytearray(file.read_bytes())
    if name == "model.safetensors":
        content[-1] ^= 1
    else:
        content += b"\n"
    file.write_bytes(content)
    writer.again()
    after = ensure(own_checkpoint, FP32, cache)
    assert writer.again() == PIECES
    assert not set(after.values()) & set(before.values())
    assert ensure(tiny_checkpoint, FP32, cache) == before  # which is still there


def test_another_recipe_builds_only_what_it_has_differently(
    tiny_checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    ensure(tiny_checkpoint, FP32, cache)
    writer.again()
    other = replace(FP32, threads=2, kv_capacity=5000, llm=replace(FP32.llm, embeddings="int8"))
    ensure(tiny_checkpoint, other, cache)
    assert writer.again() == ["llm.tables"]
    ensure(tiny_checkpoint, replace(FP32, llm=replace(FP32.llm, layers_per_file=2)), cache)
    assert writer.again() == ["llm.00"]


@pytest.mark.parametrize("name", ["stage.onnx", "stage.bin"])
def test_a_file_that_was_cut_off_is_built_again(
    name: str, tiny_checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    files = ensure(tiny_checkpoint, FP32, cache)
    (folder,) = (file.parent for piece, file in files.items() if piece.name == "audio")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    writer.again()
    said: list[str] = []
    assert ensure(tiny_checkpoint, FP32, cache, say=said.append) == files
    assert writer.again() == ["audio"]
    assert (folder / name).read_bytes() == whole
    assert len(said) == 1
    assert f"{folder / name} has {len(whole) - 1} of {len(whole)} bytes" in said[0]


def test_vision_has_as_many_layers_as_there_are_weights_of(
    own_checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    """config.json of the published checkpoint may say one less."""
    config = own_checkpoint / "config.json"
    text = config.read_text()
    config.write_text(text.replace('_last_layer": false', '_last_layer": true'))
    assert config.read_text() != text
    ensure(own_checkpoint, FP32, cache)
    assert {one.vision.layers for one in writer.configs} == {2}


def test_torch_is_a_runtime_as_well(tiny_checkpoint: Path, cache: EngineCache) -> None:
    from minicpmo_ros.runtime.torch_runtime import TorchNetwork

    found = load_network(
        tiny_checkpoint,
        Recipe(runtime="torch", precision="fp32"),
        cache=cache,
        progress=lambda what, share: None,
    )
    assert isinstance(found, TorchNetwork)
    assert not cache.folder.exists()

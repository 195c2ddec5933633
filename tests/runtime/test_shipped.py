"""Files that came with a checkpoint are used where they lie, and only for its own weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from minicpmo_ros.cli import app
from minicpmo_ros.errors import CheckpointError, ConfigError, EngineError
from minicpmo_ros.model.sums import SUMS, check_sums
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_entry import EngineKey, read_manifest
from minicpmo_ros.runtime.engines.pieces import ANY_MACHINE
from minicpmo_ros.runtime.engines.shipped import ShippedEngines
from minicpmo_ros.runtime.load import ensure, load_network
from tests import built_network
from tests.nano_network import nano_checkpoint
from tests.runtime.quick_export import Writer, cache, writer

__all__ = ["cache", "nano_checkpoint", "writer"]

FP32 = built_network.recipe("fp32")
PIECES = ["vision", "audio", "llm.00", "llm.01", "llm.head", "llm.tables"]


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["engines", *words])
    if result.exception is not None:
        raise result.exception
    return result.output


def everything_in(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of all files, hidden ones as well."""
    return {
        str(file.relative_to(directory)): (file.stat().st_size, file.stat().st_mtime_ns)
        for file in directory.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def checkpoint(
    nano_checkpoint: Path, tmp_path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """With all that the recipe needs beside its weights, by the command."""
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "builder"))
    own = Path(shutil.copytree(nano_checkpoint, tmp_path / "shipped"))
    file = built_network.write_recipe(tmp_path / "own.yaml")
    said = run("build", "--checkpoint", str(own), "--recipe", str(file), "--ship")
    assert f"6 files for own in {own / 'engines'}" in said
    assert writer.again() == PIECES
    return own


def test_it_is_loaded_from_there_and_nothing_is_written(
    checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    before = everything_in(checkpoint)
    files = ensure(checkpoint, FP32, cache)
    assert [piece.name for piece in files] == PIECES
    assert {file.is_relative_to(checkpoint / "engines") for file in files.values()} == {True}
    assert all(file.exists() for file in files.values())
    assert writer.made == []
    assert cache.entries() == [] and cache.broken() == {}
    assert everything_in(checkpoint) == before


def test_it_is_loaded_where_the_user_has_no_folder_for_engines(
    checkpoint: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose user has no home directory; only to build, one is needed."""
    monkeypatch.setenv("MINICPMO_ENGINES", "~nobody-of-this-name/engines")
    assert [piece.name for piece in ensure(checkpoint, FP32, EngineCache())] == PIECES
    other = replace(FP32, llm=replace(FP32.llm, embeddings="int8"))
    with pytest.raises(EngineError, match="set MINICPMO_ENGINES to a folder"):
        ensure(checkpoint, other, EngineCache())
    assert writer.made == []


def test_what_ships_says_nothing_of_the_machine_that_built_it(checkpoint: Path) -> None:
    for entry in EngineCache(checkpoint / "engines").entries():
        assert entry.source == ""
    names = everything_in(checkpoint)
    assert not [name for name in names if "checkpoints.json" in name or "/." in name]
    check_sums(checkpoint)
    assert "engines/" in (checkpoint / SUMS).read_text()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_it_is_not_used_for_other_weights(
    name: str, checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    (checkpoint / SUMS).unlink()  # which would tell
    content = bytearray((checkpoint / name).read_bytes())
    content[-1] ^= 1
    (checkpoint / name).write_bytes(content)
    files = ensure(checkpoint, FP32, cache)
    assert writer.again() == PIECES
    assert not [file for file in files.values() if file.is_relative_to(checkpoint)]


def test_what_another_recipe_has_differently_is_built_into_the_cache(
    checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    before = everything_in(checkpoint)
    other = replace(FP32, llm=replace(FP32.llm, embeddings="int8"))
    ensure(checkpoint, other, cache)
    assert writer.again() == ["llm.tables"]
    assert [entry.key.stage for entry in cache.entries()] == ["llm.tables"]
    assert everything_in(checkpoint) == before


def test_a_damaged_one_is_told_and_not_used(
    checkpoint: Path, cache: EngineCache, writer: Writer
) -> None:
    (folder,) = (checkpoint / "engines").glob("audio-*")
    for content in (b"\1" + bytes(999), b""):  # of the right size, too
        (folder / "stage.bin").write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{folder.name}/stage\.bin has other bytes"):
            ensure(checkpoint, FP32, cache)
    assert writer.made == []
    (checkpoint / SUMS).unlink()
    said: list[str] = []
    ensure(checkpoint, FP32, cache, say=said.append)
    assert writer.again() == ["audio"]
    assert said == [f"{folder}, which came with the checkpoint, is damaged: not used"]


def test_what_depends_on_a_machine_neither_ships_nor_is_looked_for(
    checkpoint: Path, tmp_path: Path
) -> None:
    key = EngineKey("c0ffee", "vision", "fp16", {}, "tensorrt", "10", "Orin")
    folder = EngineCache(checkpoint / "engines").ensure(
        key, lambda part: (part / "stage.engine").write_text("x") and None
    )
    shipped = ShippedEngines(checkpoint)
    assert shipped.find(key) is None
    with pytest.raises(EngineError, match=r"vision was built for Orin: only what any machine"):
        shipped.put([folder])
    with pytest.raises(ConfigError, match="'rtx' runs on tensorrt_rtx, whose engines belong"):
        run("build", "--checkpoint", str(checkpoint), "--recipe", "rtx", "--ship")
    scaled = tmp_path / "scaled.yaml"
    scaled.write_text("precision: int8\nllm: {precision: int4}\nscaling: awq\n")
    with pytest.raises(ConfigError, match=r"'awq' .* needs its calibration"):
        run("build", "--checkpoint", str(checkpoint), "--recipe", str(scaled), "--ship")


def test_shipping_again_replaces_what_belonged_to_other_weights(
    checkpoint: Path, writer: Writer, tmp_path: Path
) -> None:
    engines = checkpoint / "engines"
    old = {folder.name for folder in engines.iterdir()}
    assert len(old) == len(PIECES)
    words = ["--checkpoint", str(checkpoint), "--recipe", str(tmp_path / "own.yaml"), "--ship"]
    run("build", *words)
    assert {folder.name for folder in engines.iterdir()} == old
    assert writer.made == []
    # Another recipe comes beside it.
    int8 = built_network.write_recipe(tmp_path / "int8.yaml", audio={"precision": "int8"})
    run("build", "--checkpoint", str(checkpoint), "--recipe", str(int8), "--ship")
    assert writer.again() == ["audio"]
    assert {folder.name for folder in engines.iterdir()} > old
    # Trained on.
    with (checkpoint / "tokenizer.json").open("a") as file:
        file.write("\n")
    with pytest.raises(CheckpointError, match=rf"if you changed it on purpose, remove .*{SUMS}"):
        run("build", *words)
    (checkpoint / SUMS).unlink()
    run("build", *words)
    assert not {folder.name for folder in engines.iterdir()} & old
    assert len(list(engines.iterdir())) == len(PIECES)
    check_sums(checkpoint)


def test_shipping_that_was_cut_off_leaves_a_checkpoint_that_loads(
    checkpoint: Path, tmp_path: Path
) -> None:
    """A list of files that are gone would refuse it."""
    int8 = built_network.write_recipe(tmp_path / "int8.yaml", audio={"precision": "int8"})

    def cut_off(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    key = EngineKey("c0ffee", "audio", "fp32", {}, "onnxruntime", "1", ANY_MACHINE)
    made = EngineCache(tmp_path / "own").ensure(
        key, lambda part: (part / "stage.onnx").write_text("x") and None
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "copytree", cut_off)
        with pytest.raises(KeyboardInterrupt):
            ShippedEngines(checkpoint).put([*(checkpoint / "engines").glob("llm.head-*"), made])
    assert not (checkpoint / SUMS).exists()
    check_sums(checkpoint)
    run("build", "--checkpoint", str(checkpoint), "--recipe", str(int8), "--ship")
    assert (checkpoint / SUMS).exists()
    check_sums(checkpoint)


def test_one_of_an_older_version_goes_when_the_new_one_ships(
    checkpoint: Path, tmp_path: Path
) -> None:
    engines = EngineCache(checkpoint / "engines")
    (entry,) = (entry for entry in engines.entries() if entry.key.stage == "audio")
    old = replace(entry.key, version="1")
    folder = engines.ensure(old, lambda part: (part / "stage.onnx").write_text("x") and None)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["made"] = "2001-01-01T00:00:00+00:00"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read_manifest(folder).key == old
    ShippedEngines(checkpoint).put([entry.folder])
    assert not folder.exists() and entry.folder.exists()


def test_a_plan_knows_what_ships(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MINICPMO_ENGINES", str(tmp_path / "empty"))
    own = str(tmp_path / "own.yaml")
    text = run("plan", "--checkpoint", str(checkpoint), "--recipe", own)
    assert text.count("yes") == len(PIECES)
    assert "to write: 0.0 kB in " in text
    (checkpoint / SUMS).unlink()
    shutil.rmtree(checkpoint / "engines")
    assert "yes" not in run("plan", "--checkpoint", str(checkpoint), "--recipe", own)


# -- for real -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nano_shipped(
    nano_checkpoint: Path, engines: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint with all that the recipe nano makes of it."""
    own = Path(shutil.copytree(nano_checkpoint, tmp_path_factory.mktemp("shipped") / "nano"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICPMO_ENGINES", str(engines))
        run("build", "--checkpoint", str(own), "--recipe", "nano", "--ship")
    return own


def test_it_runs_without_torch_and_where_nothing_can_be_written(
    nano_shipped: Path, engines: Path
) -> None:
    before = everything_in(nano_shipped)
    code = f"""
import json, sys
sys.modules["torch"] = sys.modules["onnx"] = sys.modules["safetensors"] = None
from minicpmo_ros.runtime.engines import recipe
from minicpmo_ros.runtime.load import load_network
network = load_network({str(nano_shipped)!r}, recipe.load("nano"))
context = network.context(20)
print(json.dumps(context.logits(context.read([1, 2, 3])).tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=60,
        stdout=subprocess.PIPE,
        env={"MINICPMO_ENGINES": "/proc/nowhere", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert everything_in(nano_shipped) == before
    network = load_network(nano_shipped, recipe.load("nano"), cache=EngineCache(engines))
    context = network.context(20)
    assert json.loads(done.stdout) == context.logits(context.read([1, 2, 3])).tolist()


def test_what_ships_holds_no_path_of_the_builder(nano_shipped: Path) -> None:
    root = str(Path(__file__).parents[2]).encode()
    for file in (nano_shipped / "engines").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert root not in content, file
            assert sys.prefix.encode() not in content, file


def test_what_ships_computes_what_it_should(nano_shipped: Path, monkeypatch, engines) -> None:
    monkeypatch.setenv("MINICPMO_ENGINES", str(engines))
    text = run("check", "--checkpoint", str(nano_shipped), "--recipe", "nano")
    table, _, _ = text.partition("errors against float32")
    for name in ("vision", "audio", "llm.00", "llm.head"):
        assert name in table
    assert "!" not in table

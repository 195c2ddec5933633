"""The vocoder leaves torch: what was built of its assets says what torch says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
from minicpmo_ros.errors import CheckpointError, ConfigError, EngineError
from minicpmo_ros.model.fingerprint import fingerprint
from minicpmo_ros.model.flow.solver import schedule
from minicpmo_ros.model.flow.stream import FlowOptions, FlowStream
from minicpmo_ros.model.vocoder import ASSETS, VocoderConfig, assets_of, vocoder_fingerprint
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_cleaning import useless
from minicpmo_ros.runtime.engines.check import check_vocoder
from minicpmo_ros.runtime.engines.pieces import Piece, vocoder_piece, vocoder_pieces
from minicpmo_ros.runtime.engines.recipe import of
from minicpmo_ros.runtime.export.vocoder_weights import read_assets, read_config
from minicpmo_ros.runtime.export.writer import ALIGNMENT
from minicpmo_ros.runtime.load import Loader
from minicpmo_ros.runtime.vocoder import VocoderNetworks, load_vocoder
from minicpmo_ros.runtime.vocoder_load import (
    assemble_vocoder,
    ensure_vocoder,
    load_stages,
)
from tests.model.audio_stage import relative_error
from tests.model.flow_network import voice
from tests.runtime.vocoders import spoken, write_assets

CPU = of({"precision": "fp32", "threads": 1})
TORCH = of({"runtime": "torch", "precision": "fp32"})
PIECES = ("flow.encoder", "flow.estimator", "flow.tables", "hift")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of which only the vocoder's assets are there."""
    return write_assets(tmp_path_factory.mktemp("vocoder"))


@pytest.fixture(scope="module")
def files(checkpoint: Path, engines: Path) -> dict[Piece, Path]:
    return ensure_vocoder(checkpoint, CPU, EngineCache(engines))


@pytest.fixture(scope="module")
def built(files: dict[Piece, Path]) -> VocoderNetworks:
    return assemble_vocoder(CPU, files, 1)


def test_a_turn_sounds_as_in_torch(checkpoint: Path, built: VocoderNetworks) -> None:
    frames, samples = spoken(built)
    expected_frames, expected = spoken(load_vocoder(checkpoint, recipe=TORCH))
    assert relative_error(frames, expected_frames) < 1e-5
    assert len(samples) == len(expected)
    assert relative_error(samples, expected) < 1e-3
    half = load_vocoder(checkpoint, precision="fp16")
    assert relative_error(spoken(half)[0], expected_frames) < 0.01


def test_a_turn_after_a_reset_is_as_the_first(built: VocoderNetworks) -> None:
    stream = FlowStream(built.flow, voice(60), FlowOptions(steps=2))
    tokens = np.arange(150)
    first = stream.push(tokens, last=True)
    stream.reset()
    assert np.array_equal(stream.push(tokens, last=True), first)
    assert stream.nbytes == 2 * (2 * 2 * 2 * 2 * 240 * 8 + 2 * 2 * 48 * 2) * 4


def test_what_is_built_is_loaded_without_torch(
    checkpoint: Path, files: dict[Piece, Path], engines: Path
) -> None:
    code = f"""
import sys
sys.modules["torch"] = sys.modules["onnx"] = sys.modules["safetensors"] = None
from pathlib import Path
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.recipe import of
from minicpmo_ros.runtime.vocoder import VocoderNetworks, load_vocoder
from minicpmo_ros.runtime.vocoder_load import load_stages
found = load_stages(Path({str(checkpoint)!r}), of({{"precision": "fp32"}}),
                    cache=EngineCache({str(engines)!r}))
print(found.about)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stdout == "vocoder on onnxruntime, flow in fp32\n"


def test_a_checkpoint_without_assets_has_no_such_pieces(tmp_path: Path) -> None:
    assert ensure_vocoder(tmp_path, CPU, EngineCache(tmp_path / "engines")) == {}
    assert not (tmp_path / "engines").exists()
    with pytest.raises(CheckpointError, match=r"assets/token2wav has no vocoder"):
        load_stages(tmp_path, CPU)


def test_half_of_the_assets_is_told(tmp_path: Path) -> None:
    write_assets(tmp_path)
    (tmp_path / ASSETS / "flow.pt").unlink()
    with pytest.raises(CheckpointError, match=r"flow\.pt is missing"):
        ensure_vocoder(tmp_path, CPU, EngineCache(tmp_path / "engines"))
    write_assets(tmp_path)
    (tmp_path / ASSETS / "hift.pt").unlink()
    with pytest.raises(CheckpointError, match=r"has no vocoder, hift\.pt"):
        ensure_vocoder(tmp_path, CPU, EngineCache(tmp_path / "engines"))


def test_other_weights_are_another_vocoder_and_the_same_network(
    own_checkpoint: Path, tmp_path: Path
) -> None:
    memory = tmp_path / "memory.json"
    before = fingerprint(own_checkpoint, memory)
    assert assets_of(own_checkpoint) is None
    marks = set()
    for seed in (1, 2, 1):
        assets = assets_of(write_assets(own_checkpoint, seed))
        assert assets is not None
        marks.add(vocoder_fingerprint(assets, memory))
        (assets / "flow.yaml").write_text("flow: {}\n")
        marks.add(vocoder_fingerprint(assets, memory))
    assert len(marks) == 4
    assert fingerprint(own_checkpoint, memory) == before


def test_a_vocoder_whose_pickle_is_gone_is_the_same(tmp_path: Path) -> None:
    assets = write_assets(tmp_path) / ASSETS
    assert VocoderConfig.of_conversions(assets) is None
    config = read_config(assets)  # which converts
    assert VocoderConfig.of_conversions(assets) == config
    before = vocoder_fingerprint(assets, tmp_path / "memory.json")
    (assets / "flow.pt").unlink()
    assert vocoder_fingerprint(assets, tmp_path / "memory.json") == before
    assert read_config(assets) == config


def test_the_sizes_are_kept_with_what_is_built(
    checkpoint: Path, files: dict[Piece, Path], tmp_path: Path
) -> None:
    config = read_config(checkpoint / ASSETS)
    config.save(tmp_path / "sizes.json")
    assert VocoderConfig.load(tmp_path / "sizes.json") == config


def test_the_bytes_of_files_are_known_before_they_are_built(
    checkpoint: Path, files: dict[Piece, Path]
) -> None:
    config = read_config(checkpoint / ASSETS)
    assert [piece.name for piece in files] == list(PIECES)
    for piece, file in files.items():
        said = piece.nbytes(config)
        if piece.is_table:
            real = (file / "flow.npz").stat().st_size
            assert said < real < said + 4000
        else:
            real = file.with_suffix(".bin").stat().st_size
            assert 0.999 * said <= real <= said + (len(piece.names(config)) + 5) * ALIGNMENT, piece


def test_every_weight_is_in_one_piece(checkpoint: Path) -> None:
    config = read_config(checkpoint / ASSETS)
    names = [name for piece in vocoder_pieces(CPU) for name in piece.names(config)]
    assert sorted(names) == sorted(config.shapes)
    assert {vocoder_piece(name) for name in config.shapes} == set(PIECES)


@pytest.mark.parametrize("steps", [11, 40])
def test_steps_that_were_not_computed_beforehand_are_refused(
    built: VocoderNetworks, steps: int
) -> None:
    for good in (1, 3, 5, 10):
        built.flow.solver(schedule(good)[:-1], 4)
    with pytest.raises(ConfigError, match=f"steps is {steps}; .* 1 to 10 steps"):
        FlowStream(built.flow, voice(12), FlowOptions(steps=steps))


def test_what_was_built_is_checked_against_torch(
    checkpoint: Path, files: dict[Piece, Path]
) -> None:
    assets = checkpoint / ASSETS
    config = read_config(assets)
    readers = {part: read_assets(assets, part) for part in ("flow", "hift")}

    def read(name: str) -> np.ndarray:
        return readers[name.split(".")[0]](name)

    def spoilt(name: str) -> np.ndarray:
        changed = name.endswith(("w_1.weight", "fc1.weight", "hift.conv_post.weight"))
        return read(name) * np.float32(1.1 if changed else 1.0)

    loader = Loader(config, files, 1, lambda what, share: None)
    found = {one.piece.name: one for one in check_vocoder(config, read, loader)}
    assert list(found) == ["flow.encoder", "flow.estimator", "hift"]
    assert all(one.expected for one in found.values()), found
    assert found["flow.estimator"].runtime < 1e-5 and found["flow.estimator"].rows < 1e-5
    assert found["flow.encoder"].layers == 5
    wrong = list(check_vocoder(config, spoilt, loader))
    assert not any(one.expected for one in wrong), wrong


def test_a_damaged_table_is_told(files: dict[Piece, Path], tmp_path: Path) -> None:
    (tables,) = (piece for piece in files if piece.is_table)
    (tmp_path / "vocoder.json").write_text("{}")
    with pytest.raises(EngineError, match=r"is damaged .* `minicpmo engines clean"):
        assemble_vocoder(CPU, {**files, tables: tmp_path})


def test_a_byte_of_a_table_that_changed_is_told(files: dict[Piece, Path], tmp_path: Path) -> None:
    (tables,) = (piece for piece in files if piece.is_table)
    shutil.copytree(files[tables], tmp_path / "tables")
    (file,) = (tmp_path / "tables").glob("*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(EngineError, match=r"is damaged \(Bad CRC.*`minicpmo engines clean"):
        assemble_vocoder(CPU, {**files, tables: tmp_path / "tables"})


def test_what_is_built_is_of_use_as_long_as_the_assets_are_the_same(
    own_checkpoint: Path, engines: Path, files: dict[Piece, Path], tmp_path: Path
) -> None:
    cache = EngineCache(tmp_path / "engines")
    config = read_config(write_assets(own_checkpoint) / ASSETS)
    mark = vocoder_fingerprint(own_checkpoint / ASSETS, cache.fingerprints)
    (tables,) = (piece for piece in vocoder_pieces(CPU) if piece.is_table)
    key = tables.key(mark)
    cache.ensure(key, lambda folder: config.save(folder / "vocoder.json"), source=own_checkpoint)
    assert useless(cache) == {}
    write_assets(own_checkpoint, seed=2)
    assert list(useless(cache)) == [key.name]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"precision": "fp16"}, r"'fp16' is not for onnxruntime on a CPU, which takes fp32, int8"),
        ({"precision": "fp32", "runtime": "tensorrt_rtx"}, "not for tensorrt_rtx on a card"),
        ({"precision": "int4"}, "vocoder.precision: 'int4' must be one of"),
        ({"turns": 5}, "key 'vocoder.turns' is unknown"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        of({"precision": "int8", "vocoder": keys})


def test_a_recipe_may_run_the_vocoder_elsewhere() -> None:
    mixed = of({"precision": "int8", "vocoder": {"runtime": "torch", "precision": "bf16"}})
    assert mixed.runtimes == {"onnxruntime"}
    assert (mixed.vocoder.runtime, mixed.vocoder.precision) == ("torch", "bf16")
    assert of({"precision": "int8"}).vocoder.precision == "fp32"
    card = replace(of({"precision": "int8", "device": "cuda"}))
    assert card.vocoder.precision == "fp16"

"""`engines check`: what was built as it should is told from what was not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
from minicpmo_ros.model.checkpoint import Checkpoint  # noqa: E402
from minicpmo_ros.model.picture import slices  # noqa: E402
from minicpmo_ros.runtime.engines.cache import EngineCache  # noqa: E402
from minicpmo_ros.runtime.engines.check import Checked, check  # noqa: E402
from minicpmo_ros.runtime.engines.check_feeds import Feeds, Recorded  # noqa: E402
from minicpmo_ros.runtime.engines.pieces import Piece, pieces  # noqa: E402
from minicpmo_ros.runtime.engines.torch_stage import TorchStage, unknown  # noqa: E402
from minicpmo_ros.runtime.export.layerwise import CalibrationSequence  # noqa: E402
from minicpmo_ros.runtime.kv import KvRows  # noqa: E402
from minicpmo_ros.runtime.load import Loader, ensure  # noqa: E402
from tests import built_network  # noqa: E402

if TYPE_CHECKING:
    from minicpmo_ros.runtime.api import Network

Files = dict[Piece, Path]
Read = Callable[[str], np.ndarray]


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return Checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def read(checkpoint: Checkpoint) -> Read:
    return lambda name: checkpoint.read(name).numpy()


@pytest.fixture
def files(
    tiny_checkpoint: Path, engines: Path, built: Callable[[str], Network]
) -> Callable[[str], Files]:
    def of(name: str) -> Files:
        built(name)
        return ensure(tiny_checkpoint, built_network.recipe(name), EngineCache(engines))

    return of


def results(checkpoint: Checkpoint, read: Read, files: Files) -> dict[str, Checked]:
    loader = Loader(checkpoint.config, files, 1, lambda what, share: None)
    return {one.piece.name: one for one in check(checkpoint.config, read, loader)}


@pytest.mark.parametrize("name", ["fp32", "cpu"])
def test_what_was_built_is_as_expected(
    name: str, checkpoint: Checkpoint, read: Read, files: Callable[[str], Files]
) -> None:
    """Also: what hides scores is not taken for a value."""
    found = results(checkpoint, read, files(name))
    assert set(found) == {piece.name for piece in files(name) if not piece.is_table}
    for one in found.values():
        assert one.expected, one
        assert 0 < one.largest < 1000
        if one.piece.precision == "fp32":
            assert max(one.runtime, one.whole, one.rows) < 1e-5
        if one.piece.precision == "int4":  # rounding is the checkpoint's loss, not the runtime's
            assert one.runtime < one.whole / 5


def spoilt(file: Path, folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """A copy of a file whose weights were changed; they are given by name, as bytes."""
    folder = Path(shutil.copytree(file.parent, folder))
    data = np.memmap(folder / "stage.bin", np.uint8, "r+")
    places = {}
    for tensor in onnx.load(file, load_external_data=False).graph.initializer:
        where = {entry.key: entry.value for entry in tensor.external_data}
        if where:
            start = int(where["offset"])
            places[tensor.name] = data[start : start + int(where["length"])]
    change(places)
    data.flush()
    return folder / file.name


def a_byte(weights: dict[str, np.ndarray]) -> None:
    """The exponent of one weight."""
    weights["layers.0.mlp.down_proj.weight"][403] ^= 0x08


def a_norm(weights: dict[str, np.ndarray]) -> None:
    """Another one's gains."""
    norms = [f"layers.0.{name}_layernorm.weight" for name in ("input", "post_attention")]
    weights[norms[0]][:] = weights[norms[1]]


def a_norm_of_keys(weights: dict[str, np.ndarray]) -> None:
    weights["layers.0.self_attn.k_norm.weight"].view(np.float32)[3] *= 1.01


def codes(weights: dict[str, np.ndarray]) -> None:
    """One of a thousand, drawn anew."""
    (name,) = (name for name in weights if name.endswith("0.mlp.down_proj.weight.codes"))
    some = weights[name][::1000]
    assert len(some) > 10
    some[:] = np.random.default_rng(0).integers(0, 256, len(some))


def scales(weights: dict[str, np.ndarray]) -> None:
    """Of all blocks those of the neighbour."""
    (name,) = (name for name in weights if name.endswith("1.mlp.down_proj.weight.scales"))
    values = weights[name].view(np.float32)
    values[:] = np.roll(values, 1)


@pytest.mark.parametrize("change", [a_byte, a_norm, a_norm_of_keys])
def test_weights_that_have_changed_are_found(
    change: Callable[[dict[str, np.ndarray]], None],
    checkpoint: Checkpoint,
    read: Read,
    files: Callable[[str], Files],
    tmp_path: Path,
) -> None:
    own = {piece: file for piece, file in files("fp32").items() if piece.name == "llm.00"}
    (piece,) = own
    own[piece] = spoilt(own[piece], tmp_path / "spoilt", change)
    assert not results(checkpoint, read, own)["llm.00"].expected


@pytest.mark.parametrize("change", [codes, scales])
def test_weights_of_four_bits_that_have_changed_are_found(
    change: Callable[[dict[str, np.ndarray]], None],
    checkpoint: Checkpoint,
    read: Read,
    files: Callable[[str], Files],
    tmp_path: Path,
) -> None:
    own = {piece: file for piece, file in files("cpu").items() if piece.name == "llm.00"}
    (piece,) = own
    own[piece] = spoilt(own[piece], tmp_path / "spoilt", change)
    assert not results(checkpoint, read, own)["llm.00"].expected


def test_layers_that_were_swapped_are_found(
    checkpoint: Checkpoint, read: Read, files: Callable[[str], Files]
) -> None:
    own = {piece: file for piece, file in files("fp32").items() if piece.name.startswith("llm.0")}
    first, second = own
    found = results(checkpoint, read, {first: own[first], second: own[first]})
    assert found["llm.00"].expected
    assert not found["llm.01"].expected


class TorchLoader:
    """A runtime that computes what torch does, and then what a test makes of it.

    after: gets what a step gave, the cache, and the rows before that step.
    """

    def __init__(
        self,
        piece: Piece,
        checkpoint: Checkpoint,
        read: Read,
        after: Callable[[np.ndarray, KvRows, int], np.ndarray] = lambda found, cache, at: found,
    ) -> None:
        self.pieces = [piece]
        self._stage = TorchStage(piece, checkpoint.config, read, unknown)
        self._config = checkpoint.config.llm
        self._after = after

    def cached_file(self, piece: Piece) -> TorchLoader:
        return self

    def cache_sizes(self, part: str) -> tuple[int, int, float]:
        return self._config.kv_heads, self._config.head_dim, self._config.rope_theta

    def cache(self, rows: int) -> KvRows:
        heads, dim, theta = self.cache_sizes("llm")
        return KvRows(self._config.layers, heads, rows, dim, theta)

    def step(self, feed: Mapping[str, Any], cache: KvRows, at: int, rows: int) -> np.ndarray:
        caches = {f"cache.{index}": buffer for index, buffer in enumerate(cache.buffers)}
        found, *new = self._stage.run({**feed, "past": np.array([at]), **caches})
        cache.write(new, at)
        return self._after(found, cache, at)


@pytest.fixture
def piece(checkpoint: Checkpoint) -> Piece:
    layers = (0, checkpoint.config.llm.layers)
    return Piece("llm.00", "tensorrt_rtx", "fp16", "float16", layers)


def only(found: Iterator[Checked]) -> Checked:
    (one,) = found
    return one


def spoil_output(found: np.ndarray, cache: KvRows, at: int) -> np.ndarray:
    return found * np.nan if at > 24 else found


def spoil_keys(found: np.ndarray, cache: KvRows, at: int) -> np.ndarray:
    cache.buffers[0][0, at:] += 0.5
    return found


def spoil_last_keys(found: np.ndarray, cache: KvRows, at: int) -> np.ndarray:
    cache.buffers[0][0, at:] *= np.nan if at > 25 else 1.0
    return found


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("after", [spoil_output, spoil_keys, spoil_last_keys])
def test_a_step_that_goes_wrong_is_found(
    after: Callable[[np.ndarray, KvRows, int], np.ndarray],
    piece: Piece,
    checkpoint: Checkpoint,
    read: Read,
) -> None:
    config = checkpoint.config
    right: Any = TorchLoader(piece, checkpoint, read)
    assert only(check(config, read, right)).expected
    wrong: Any = TorchLoader(piece, checkpoint, read, after)
    assert not only(check(config, read, wrong)).expected


def larger(read: Read, ends: tuple[str, ...], by: float) -> Read:
    return lambda name: read(name) * np.float32(by) if name.endswith(ends) else read(name)


@pytest.mark.parametrize(
    ("ends", "by"),
    [
        (("o_proj.weight",), 1e6),
        # What modules give stays far below, but not the product of two of them,
        (("gate_proj.weight", "up_proj.weight"), 300.0),
        # nor the scores of queries and keys.
        (("k_norm.weight", "q_norm.weight"), 200.0),
    ],
)
def test_what_half_precision_cannot_hold_is_told(
    ends: tuple[str, ...], by: float, piece: Piece, checkpoint: Checkpoint, read: Read
) -> None:
    config = checkpoint.config
    large = larger(read, ends, by)
    plays: Any = TorchLoader(piece, checkpoint, large)
    half = only(check(config, large, plays))
    assert half.runtime < 1e-6
    assert half.largest > 65504
    assert not half.expected
    assert replace(half, piece=replace(piece, dtype="float32")).expected
    assert replace(half, largest=65000.0).expected


def test_the_residual_stream_counts(piece: Piece, checkpoint: Checkpoint, read: Read) -> None:
    """Though no module gives or gets it."""
    stage = TorchStage(piece, checkpoint.config, larger(read, ("o_proj.weight",), 0.0))
    config = checkpoint.config.llm
    embeds = np.full((3, config.hidden), 0.1, np.float32)
    embeds[0, 0] = 7e4
    cache = np.zeros((config.kv_heads, 2, config.head_dim), np.float32)
    caches = {f"cache.{index}": cache for index in range(2 * config.layers)}
    stage.run({"embeds": embeds, "past": np.array([0]), **caches})
    assert stage.largest == pytest.approx(7e4, rel=1e-3)


def moved(read: Read, by: Mapping[str, float]) -> Read:
    """The first value of some weights is another one; they are given by their ends."""

    def found(name: str) -> np.ndarray:
        weights = read(name)
        for end, value in by.items():
            if name.endswith(end):
                weights = weights.copy()
                weights.reshape(-1)[0] = value
        return weights

    return found


def largest_of_sound(checkpoint: Checkpoint, read: Read, dtype: str) -> float:
    stage = TorchStage(Piece("audio", "tensorrt_rtx", "fp16", dtype), checkpoint.config, read)
    audio = checkpoint.config.audio
    cache = np.zeros((audio.heads, 50, audio.hidden // audio.heads), np.float32)
    caches = {f"cache.{index}": cache for index in range(2 * audio.layers)}
    (step, *_), *_ = Feeds(checkpoint.config).runs(
        Piece("audio", "", "fp16"), {}, np.random.default_rng(0)
    )
    found = stage.run({**step.feed, "past": np.array([0]), **caches})
    assert np.isfinite(found[0]).all()
    return stage.largest


FC2, OUT = "layers.0.fc2.bias", "layers.0.self_attn.out_proj.bias"


def test_what_whispers_clamp_holds_is_no_overflow(checkpoint: Checkpoint, read: Read) -> None:
    """The sum that goes into it, and the term that makes it so large."""
    for sign in (1, -1):
        large = moved(read, {FC2: sign * 1e5})
        assert largest_of_sound(checkpoint, large, "float16") == pytest.approx(64504, rel=0.01)
        assert largest_of_sound(checkpoint, large, "float32") == pytest.approx(1e5, rel=0.01)


@pytest.mark.parametrize(
    ("by", "largest"),
    [
        # No clamp follows before the norm, which would make NaN of infinity.
        ({OUT: 1e5}, 1e5),
        # The sum is within the range, and would be at its end were the term infinite.
        ({FC2: 7e4, OUT: -2e4}, 7e4),
    ],
)
def test_what_the_clamp_does_not_hold_counts(
    by: dict[str, float], largest: float, checkpoint: Checkpoint, read: Read
) -> None:
    found = largest_of_sound(checkpoint, moved(read, by), "float16")
    assert found == pytest.approx(largest, rel=0.01)


def test_what_is_not_a_number_does_not_fit(
    piece: Piece, checkpoint: Checkpoint, read: Read
) -> None:
    broken = moved(read, {"layers.1.mlp.down_proj.weight": np.nan})
    loader = Loader(checkpoint.config, {piece: Path()}, 1, lambda what, share: None)
    one = only(check(checkpoint.config, broken, loader, runs_built=False))
    assert one.largest == np.inf and not one.expected


def in_torch(
    checkpoint: Checkpoint, read: Read, precision: str, feeds: Feeds | None = None
) -> dict[str, Checked]:
    """Of files that are not there."""
    config = checkpoint.config
    wanted = [
        replace(one, precision=precision, dtype="float16")
        for one in pieces(config, built_network.recipe("fp32"))
    ]
    loader = Loader(config, dict.fromkeys(wanted, Path()), 1, lambda what, share: None)
    done = check(config, read, loader, feeds=feeds, runs_built=False)
    return {one.piece.name: one for one in done}


def test_without_what_was_built_torch_tells_what_rounding_costs(
    checkpoint: Checkpoint, read: Read
) -> None:
    half, four = (in_torch(checkpoint, read, precision) for precision in ("fp16", "int4"))
    assert {"vision", "audio", "llm.00", "llm.01", "llm.head", "speech"} < set(half) == set(four)
    for one in (*half.values(), *four.values()):
        assert not one.ran and one.expected and 0 < one.largest < 1000
    assert all(one.whole == 0 for one in half.values())
    assert four["llm.00"].whole > 0.01 and four["llm.head"].whole > 0.01


def test_without_what_was_built_an_overflow_is_told(checkpoint: Checkpoint, read: Read) -> None:
    large = larger(read, ("layers.1.self_attn.o_proj.weight",), 1e6)
    found = in_torch(checkpoint, large, "fp16")
    assert {name for name, one in found.items() if not one.expected} == {"llm.01", "speech"}


def recorded(checkpoint: Checkpoint, tokens: int, loud: float = 0.02) -> Recorded:
    config = checkpoint.config
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    embeds = (random.standard_normal((tokens, config.llm.hidden)) * loud).astype(np.float32)
    mels = random.standard_normal((2, config.audio.mels, 104)).astype(np.float32)
    return Recorded(
        tuple(slices(picture, 1, config.slices)), tuple(mels), CalibrationSequence(embeds)
    )


def test_a_recording_is_the_input_of_encoders_and_language_model(
    checkpoint: Checkpoint, read: Read, files: Callable[[str], Files]
) -> None:
    """Two of different lengths, each behind empty caches."""
    both = [recorded(checkpoint, 100), recorded(checkpoint, 7)]
    feeds = Feeds(checkpoint.config, both, prefill=16)
    loader = Loader(checkpoint.config, files("fp32"), 1, lambda what, share: None)
    found = list(check(checkpoint.config, read, loader, feeds=feeds))
    assert all(one.ran and one.expected for one in found)
    random = np.random.default_rng(0)
    for name, layers, rows in (("llm.00", (0, 1), [100, 7]), ("audio", (0, 0), [100, 100])):
        runs = feeds.runs(Piece(name, "", "fp32", layers=layers), {}, random)
        assert [sum(step.rows for step in run) for run in runs] == rows
    tokens, _ = feeds.runs(Piece("llm.00", "", "fp32", layers=(0, 1)), {}, random)
    assert (
        max(step.rows for step in tokens) == 16 and [step.rows for step in tokens[-3:]] == [1] * 3
    )
    given = np.concatenate([step.feed["embeds"] for step in tokens])
    assert np.array_equal(given, both[0].sequence.embeds)
    (looks,) = feeds.runs(Piece("vision", "", "fp32"), {}, random)
    assert len(looks) == 2
    assert np.array_equal(looks[0].feed["pixels"][0], both[0].slices[0].pixels)


def test_a_recording_shows_what_noise_does_not(checkpoint: Checkpoint, read: Read) -> None:
    feeds = Feeds(checkpoint.config, [recorded(checkpoint, 30, loud=5e4)])
    found = in_torch(checkpoint, read, "fp16", feeds)
    assert {name for name, one in found.items() if not one.fits} == {"llm.00", "llm.01"}

"""Stages in TensorRT do what the network does in torch; on a card that onnxruntime plays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
from minicpmo_ros.errors import EngineError, KvFullError
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.runtime.kv import SMALLEST
from minicpmo_ros.runtime.staged import Reader, StagedContext
from minicpmo_ros.runtime.torch_runtime import TorchContext
from minicpmo_ros.runtime.trt.card import Card
from minicpmo_ros.runtime.trt.library import Library
from minicpmo_ros.runtime.trt.profiles import decoder_profiles, head_profiles, turn_profiles
from minicpmo_ros.runtime.trt.stage import TrtCachedStage, TrtStage
from tests.runtime.networks import CONFIG, close
from tests.runtime.trt.conftest import TurnGraph
from tests.runtime.trt.fake_cuda import FakeCuda
from tests.runtime.trt.fake_trt import fake_module, write_engine

CAPACITY, PREFILL = 1000, 128
# Of single precision to half, through three layers.
NEAR = 0.03


@dataclass
class Machine:
    """A fake card with the engines of a language model on it."""

    cuda: FakeCuda
    card: Card
    layers: TrtCachedStage
    head: TrtStage
    table: np.ndarray

    def context(self, capacity: int = CAPACITY) -> StagedContext:
        table: Any = self.table
        return StagedContext(Reader(self.layers, self.head, table, PREFILL), capacity)


def machine(
    llm: Llm, files: list[Path], tmp_path: Path, *, rtx: bool = True, packed: bool = True,
    cuda: FakeCuda | None = None, turn: Path | None = None,
) -> Machine:  # fmt: skip
    cuda = cuda or FakeCuda()
    library = Library("tensorrt_rtx" if rtx else "tensorrt", fake_module(cuda, rtx=rtx))
    card = Card(cuda=cuda)
    profiles = decoder_profiles(PREFILL, CAPACITY, packed=packed)
    engines = [
        write_engine(tmp_path / f"{file.stem}.engine", file, profiles) for file in files[:-1]
    ]
    head = write_engine(tmp_path / "head.engine", files[-1], head_profiles())
    if turn is not None:
        keys = turn_profiles(CONFIG.layers * CONFIG.kv_heads)
        turn = write_engine(tmp_path / "turn.engine", turn, keys)
    layers = TrtCachedStage(
        library, card, list(zip(engines, (2, 1), strict=True)),
        CONFIG.kv_heads, CONFIG.head_dim, CONFIG.rope_theta, turn,
    )  # fmt: skip
    table = llm.model.embed_tokens.weight.numpy()
    return Machine(cuda, card, layers, TrtStage(library, card, head), table)


@pytest.mark.parametrize("rtx", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_a_conversation_reads_as_in_torch(
    llm: Llm, single: list[Path], turn_graph: TurnGraph, tmp_path: Path, rtx: bool, packed: bool
) -> None:
    """Prefill and tokens, a cache that grows, rows removed, moved and written over."""
    turn = turn_graph(CONFIG.head_dim, "float32")
    ours = machine(llm, single, tmp_path, rtx=rtx, packed=packed, turn=turn).context()
    theirs = TorchContext(llm, CAPACITY)
    embeds = np.random.default_rng(0).standard_normal((300, CONFIG.hidden)).astype(np.float32)

    def read(*parts: Any, **where: int) -> None:
        tensors = (torch.from_numpy(p) if isinstance(p, np.ndarray) else p for p in parts)
        found, expected = ours.read(*parts, **where), theirs.read(*tensors, **where)
        assert close(found, expected, 1e-4)
        assert close(ours.logits(found), theirs.logits(expected), 1e-4)
        assert ours.length == theirs.length
        assert close(ours.keys(ours.length), theirs.keys(theirs.length), 1e-4)

    read([5, 6, 7], embeds[:9], [8])
    for token in (3, 4, 5, 6):
        read([token])
    read(embeds)  # in pieces; the cache grows
    for token in (7, 8, 9):
        read([token])
    for one in (ours, theirs):
        one.remove([(3, 120), (200, 210)])
    for token in (1, 2):
        read([token])
    for one in (ours, theirs):
        one.shift(50, 80)
    read(embeds[:30], at=50)
    for one in (ours, theirs):
        one.shift(70, 20)
    read([11])
    for one in (ours, theirs):
        one.truncate(25)
    for token in (12, 13):
        read([token])


def test_half_precision_with_four_bits_is_near(llm: Llm, half: list[Path], tmp_path: Path) -> None:
    import copy

    from torch import nn

    from minicpmo_ros.runtime.int4 import quantise

    rounded = copy.deepcopy(llm)
    for module in rounded.model.layers.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(torch.from_numpy(quantise(module.weight.numpy()).weights()))
    ours, theirs = machine(llm, half, tmp_path).context(), TorchContext(rounded, CAPACITY)
    plain = TorchContext(llm, CAPACITY)
    for ids in (list(range(40)), [3], [4], [5]):
        found, expected = ours.read(ids), theirs.read(ids)
        assert found.dtype == np.float32
        assert close(found, expected, NEAR)
        assert not close(plain.read(ids), expected, NEAR)
        assert close(ours.logits(found), theirs.logits(expected), NEAR)
    ours.remove([(5, 20)])
    theirs.remove([(5, 20)])
    assert close(ours.read([6]), theirs.read([6]), NEAR)
    assert close(ours.keys(20), theirs.keys(20), NEAR)


def test_tokens_are_launched_as_one_graph_for_each_size_of_the_cache(
    llm: Llm, single: list[Path], tmp_path: Path
) -> None:
    fake = machine(llm, single, tmp_path)
    context, cuda = fake.context(), fake.cuda
    context.read(list(range(20)))
    assert (cuda.captures, cuda.launches) == (0, 0)
    context.read([1])  # as it is, so that kernels are loaded
    assert (cuda.captures, cuda.launches) == (0, 0)
    before = cuda.copies
    for token in range(2, 12):
        context.read([token])
    assert (cuda.captures, cuda.launches) == (1, 10)
    # Embedding and position up, hidden state down, and one copy for the rows of all layers.
    assert cuda.copies - before == 10 * 4
    context.read(list(range(100)))
    context.read(list(range(SMALLEST)))  # what the cache had is too small
    for token in range(5):
        context.read([token])
    assert (cuda.captures, cuda.launches) == (2, 14)


def test_two_conversations_do_not_see_each_other(
    llm: Llm, single: list[Path], tmp_path: Path
) -> None:
    fake = machine(llm, single, tmp_path)
    ours, theirs = [fake.context() for _ in range(2)], [TorchContext(llm, CAPACITY) for _ in "ab"]
    for number in range(12):
        which = number % 2
        assert close(ours[which].read([number]), theirs[which].read([number]), 1e-4)
    assert fake.cuda.captures == 2


def test_where_no_graph_can_be_captured_tokens_are_read_without(
    llm: Llm, single: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = machine(llm, single, tmp_path)
    fake.cuda.capture_fails = True
    ours, theirs = fake.context(), TorchContext(llm, CAPACITY)
    for token in range(4):
        assert close(ours.read([token]), theirs.read([token]), 1e-4)
    assert fake.cuda.launches == 0
    assert "no CUDA graph" in caplog.text


def test_a_full_cache_is_refused_before_anything_is_written(
    llm: Llm, single: list[Path], tmp_path: Path
) -> None:
    full = machine(llm, single, tmp_path).context(capacity=20)
    full.read(list(range(15)))
    before = full.keys(15)
    with pytest.raises(KvFullError):
        full.read(list(range(6)))
    assert full.length == 15
    assert np.array_equal(full.keys(15), before)
    assert len(full.read(list(range(5)))) == 5


def test_a_stage_writes_nothing_that_does_not_fit(
    llm: Llm, single: list[Path], tmp_path: Path
) -> None:
    layers = machine(llm, single, tmp_path).layers
    cache = layers.cache(20)
    with pytest.raises(KvFullError, match="20 rows, 18 in use, and 3 more"):
        layers.step({"embeds": np.zeros((3, CONFIG.hidden), np.float32)}, cache, 18, 3)
    assert cache.length == 0


def test_graphs_follow_when_the_scratch_memory_moves(
    llm: Llm, single: list[Path], tmp_path: Path
) -> None:
    """As when another stage is loaded while a conversation goes on."""
    fake = machine(llm, single, tmp_path)
    ours, theirs = fake.context(), TorchContext(llm, CAPACITY)
    for token in range(8):
        if token == 4:
            fake.card.scratch.reserve(100_000)
        assert close(ours.read([token]), theirs.read([token]), 1e-4)
    assert (fake.cuda.captures, fake.cuda.launches) == (2, 6)


def test_memory_is_given_back(
    llm: Llm, single: list[Path], turn_graph: TurnGraph, tmp_path: Path
) -> None:
    import gc

    fake = machine(llm, single, tmp_path, turn=turn_graph(CONFIG.head_dim, "float32"))
    fake.context().read([1, 2])
    gc.collect()
    held, free = fake.cuda.allocations, fake.cuda.free
    context = fake.context()
    for ids in ([5] * 400, [1], [2], [3]):
        context.read(ids)
    context.remove([(0, 100)])
    assert fake.cuda.free < free - context.nbytes // 4
    del context
    gc.collect()
    assert (fake.cuda.allocations, fake.cuda.free) == (held, free)


def test_a_card_that_is_too_small_is_told_of(llm: Llm, single: list[Path], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"Fake RTX 4090 has no .* left"):
        machine(llm, single, tmp_path, cuda=FakeCuda(total=1 << 19))


def test_what_engines_were_not_built_for_is_refused(
    llm: Llm, single: list[Path], tmp_path: Path
) -> None:
    fake = machine(llm, single, tmp_path)
    with pytest.raises(EngineError, match="caches of 1000 rows, and 1001"):
        fake.context(CAPACITY + 1)
    cache = fake.layers.cache(CAPACITY)
    many = np.zeros((PREFILL + 1, CONFIG.hidden), np.float32)
    with pytest.raises(EngineError, match=r"was not built for embeds \[129, 128\]"):
        fake.layers.step({"embeds": many}, cache, 0, PREFILL + 1)
    assert cache.length == 0
    with pytest.raises(ValueError, match="given are embeddings"):
        fake.head.run({"embeddings": many})


def test_engines_that_do_not_belong_together_are_refused(
    llm: Llm, single: list[Path], half: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="does not follow on"):
        machine(llm, [single[0], half[1], half[2]], tmp_path)
    with pytest.raises(EngineError, match="another network"):
        machine(llm, [single[1], single[0], single[2]], tmp_path)

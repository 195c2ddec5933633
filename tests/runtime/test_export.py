"""Decoders as ONNX files, run by onnxruntime, against the same in torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
from minicpmo_ros.errors import KvFullError  # noqa: E402
from minicpmo_ros.model.llm import Llm  # noqa: E402
from minicpmo_ros.runtime.export.plans import decoder_plan, head_plan  # noqa: E402
from minicpmo_ros.runtime.export.writer import export  # noqa: E402
from minicpmo_ros.runtime.int4 import quantise  # noqa: E402
from minicpmo_ros.runtime.ort.stages import OrtCachedStage, OrtStage, session  # noqa: E402
from minicpmo_ros.runtime.staged import Reader, StagedContext  # noqa: E402
from minicpmo_ros.runtime.tables import Table, write_table  # noqa: E402
from minicpmo_ros.runtime.torch_runtime import TorchContext  # noqa: E402
from tests.runtime import networks  # noqa: E402

CONFIG = replace(networks.CONFIG, layers=2)


def random_llm() -> Llm:
    return networks.random_llm(CONFIG)


def written(llm: Llm, folder: Path, int4: bool) -> Path:
    weights = {name: one.numpy() for name, one in llm.named_parameters()}
    export(
        decoder_plan(CONFIG, norm_heads=True, precision="int4" if int4 else "fp32"),
        lambda name: weights[f"model.{name}"],
        folder / "step.onnx",
    )
    export(
        head_plan(CONFIG.hidden, CONFIG.vocab),
        lambda name: weights["lm_head.weight"],
        folder / "head.onnx",
    )
    return folder


@pytest.fixture(scope="module")
def llm() -> Llm:
    return random_llm()


@pytest.fixture(scope="module")
def files(llm: Llm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(llm, tmp_path_factory.mktemp("fp32"), int4=False)


@pytest.fixture(scope="module")
def small_files(llm: Llm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(llm, tmp_path_factory.mktemp("int4"), int4=True)


def context(llm: Llm, folder: Path, capacity: int = 1000) -> StagedContext:
    write_table(folder, "tokens", llm.model.embed_tokens.weight.numpy(), "fp32")
    layers = OrtCachedStage(
        [(folder / "step.onnx", CONFIG.layers)],
        CONFIG.kv_heads,
        CONFIG.head_dim,
        CONFIG.rope_theta,
        threads=1,
    )
    head = OrtStage(folder / "head.onnx", threads=1)
    return StagedContext(Reader(layers, head, Table(folder, "tokens")), capacity)


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    found, expected = np.asarray(found), np.asarray(expected)
    return bool(np.abs(found - expected).max() <= tolerance * np.abs(expected).max())


def test_onnxruntime_reads_as_torch_does(llm: Llm, files: Path) -> None:
    """Ids and embeddings, many and one, with rows taken out, moved and written over in between."""
    ours, theirs = context(llm, files), TorchContext(llm, 1000)
    random = np.random.default_rng(0)
    embeds = random.standard_normal((600, CONFIG.hidden)).astype(np.float32)
    both = (ours, lambda x: x), (theirs, torch.from_numpy)

    def read(*parts: Any, **where: int) -> None:
        hidden = [
            one.read(*(p if isinstance(p, list) else make(p) for p in parts), **where)
            for one, make in both
        ]
        assert close(*hidden)
        assert close(ours.logits(hidden[0]), theirs.logits(hidden[1]))
        assert ours.length == theirs.length
        assert close(ours.keys(5), theirs.keys(5))

    read([5, 6, 7], embeds[:9], [8])
    read([3])
    read(embeds)  # longer than a block, and than the first buffers
    for one, _ in both:
        one.remove([(3, 200), (400, 410)])
    read([1, 2])
    for one, _ in both:
        one.shift(50, 80)
    read(embeds[:30], at=50)
    for one, _ in both:
        one.truncate(60)
    read([9])


def test_a_full_context_is_refused_before_anything_is_written(llm: Llm, files: Path) -> None:
    full = context(llm, files, capacity=20)
    full.read(list(range(15)))
    before = full.keys(15)
    with pytest.raises(KvFullError):
        full.read(list(range(6)))
    assert full.length == 15
    assert np.array_equal(full.keys(15), before)
    assert len(full.read(list(range(5)))) == 5


def test_four_bits_are_those_of_the_quantiser_and_stay_packed(
    llm: Llm, small_files: Path, tmp_path: Path
) -> None:
    """What comes out is what torch makes of the same rounded weights, within the rounding of
    inputs to eight bits."""
    import copy

    rounded = copy.deepcopy(llm)
    for module in rounded.model.layers.modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(torch.from_numpy(quantise(module.weight.numpy()).weights()))
    ours, theirs = context(llm, small_files), TorchContext(rounded, 1000)
    ids = list(range(40))
    assert close(ours.read(ids), theirs.read(ids), 0.03)
    plain = TorchContext(llm, 1000)
    assert not close(plain.read(ids), theirs.read(ids), 0.03)

    session(small_files / "step.onnx", save=tmp_path / "fused.onnx")
    fused = onnx.load(tmp_path / "fused.onnx", load_external_data=False)
    kinds = [node.op_type for node in fused.graph.node]
    # Of each layer: queries, keys and values in one; what they come to; gate and up in one; down.
    assert kinds.count("MatMulNBits") == 4 * CONFIG.layers
    assert "DequantizeLinear" not in kinds


def test_four_bits_take_an_eighth(files: Path, small_files: Path) -> None:
    matrices = sum(
        rows * columns
        for rows, columns in (
            (256, 128), (128, 128), (128, 128), (128, 256), (256, 128), (256, 128), (128, 256),
        )
    ) * CONFIG.layers  # fmt: skip
    assert (files / "step.bin").stat().st_size > 4 * matrices
    # Half a byte and a share of a scale, and weights begin at pages.
    assert (small_files / "step.bin").stat().st_size < 0.6 * matrices + 50 * 4096


def test_no_key_is_copied_for_a_token(files: Path, tmp_path: Path) -> None:
    """As onnxruntime runs it, each cache goes into a product and nowhere else."""
    session(files / "step.onnx", save=tmp_path / "fused.onnx")
    graph = onnx.load(tmp_path / "fused.onnx", load_external_data=False).graph
    for index in range(2 * CONFIG.layers):
        users = [node.op_type for node in graph.node if f"cache.{index}" in node.input]
        assert set(users) <= {"MatMul", "FusedMatMul", "Shape"}, (index, users)
        assert any("MatMul" in user for user in users)


def test_an_export_that_is_cut_off_leaves_no_file_that_could_be_loaded(tmp_path: Path) -> None:
    weights = {name: one.numpy() for name, one in random_llm().named_parameters()}

    def read(name: str) -> np.ndarray:
        if "mlp" in name:
            raise KeyboardInterrupt
        return weights[f"model.{name}"]

    small = replace(CONFIG, layers=1)
    with pytest.raises(KeyboardInterrupt):
        export(decoder_plan(small, norm_heads=True), read, tmp_path / "step.onnx")
    assert {file.suffix for file in tmp_path.iterdir()} <= {".part"}


def test_weights_are_read_one_after_the_other(tmp_path: Path) -> None:
    """No more than those that are joined into one matrix: the tracer had none, and each is let go
    of before the next."""
    import weakref

    llm = random_llm()
    weights = {name: one.numpy() for name, one in llm.named_parameters()}
    alive: list[weakref.ref[np.ndarray]] = []

    def read(name: str) -> np.ndarray:
        assert sum(one() is not None for one in alive) <= 3
        fresh = weights[f"model.{name}"].copy()
        alive.append(weakref.ref(fresh))
        return fresh

    counts: list[int] = []
    plan = decoder_plan(CONFIG, norm_heads=True, precision="int4")
    export(plan, read, tmp_path / "step.onnx", counts.append)
    decoder = sum(one.numel() for name, one in llm.model.layers.named_parameters())
    assert sum(counts) == decoder + CONFIG.hidden

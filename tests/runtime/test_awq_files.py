"""Files of four bits from a checkpoint that AutoAWQ packed: its codes have a zero point for each
group, ours have none, so they are rounded once more."""

from __future__ import annotations

import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnx", reason="writing ONNX files needs the extra export")
pytest.importorskip("onnxscript", reason="writing ONNX files needs the extra export")
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.runtime.engines.build import make_piece
from minicpmo_ros.runtime.engines.pieces import GRAPH_FILE, Piece
from minicpmo_ros.runtime.int4 import BLOCK, quantise
from minicpmo_ros.runtime.ort.stages import OrtCachedStage, OrtStage
from minicpmo_ros.runtime.staged import Reader, StagedContext
from minicpmo_ros.runtime.tables import Table
from minicpmo_ros.runtime.torch_runtime import TorchContext
from tests.model.packing import pack_checkpoint, plain, rounded
from tests.runtime.networks import close

LAYERS = (0, 2)
MATRICES = [f"self_attn.{name}_proj" for name in "qkvo"]
MATRICES += [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
IDS = list(range(5, 65))


@dataclass(frozen=True)
class Packed:
    """before: the language model that was packed; own: with the weights that AWQ's codes stand
    for. files: what is built of them, loaded."""

    before: Llm
    own: Llm
    files: StagedContext


def loaded(directory: Path) -> Llm:
    opened = Checkpoint(directory)
    return opened.build(lambda: Llm(opened.config.llm), "llm.", torch.float32)


@pytest.fixture(scope="module")
def packed(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    folder = tmp_path_factory.mktemp("awq")
    directory = Path(shutil.copytree(tiny_checkpoint, folder / "checkpoint"))
    modules = [f"llm.model.layers.{n}.{one}" for n in range(*LAYERS) for one in MATRICES]
    pack_checkpoint(directory, modules, keep=True)
    for piece in (
        Piece("llm.00", "onnxruntime", "int4", layers=LAYERS),
        Piece("llm.head", "onnxruntime", "fp32"),
        Piece("llm.tables", "", "fp32"),
    ):
        (folder / piece.name).mkdir()
        make_piece(directory, piece, folder / piece.name)
    own = loaded(directory)
    sizes = own.config
    layers = OrtCachedStage(
        [(folder / "llm.00" / GRAPH_FILE, sizes.layers)],
        sizes.kv_heads,
        sizes.head_dim,
        sizes.rope_theta,
        threads=1,
    )
    head = OrtStage(folder / "llm.head" / GRAPH_FILE, threads=1)
    files = StagedContext(Reader(layers, head, Table(folder / "llm.tables", "tokens")), 100)
    return Packed(loaded(tiny_checkpoint), own, files)


def test_the_files_hold_the_weights_that_the_codes_stand_for(packed: Packed) -> None:
    """Rounded to blocks without a zero point; what else differs is the rounding of inputs."""
    again = deepcopy(packed.own)
    for module in again.model.layers.modules():
        if isinstance(module, nn.Linear):
            weights = quantise(module.weight.numpy()).weights()
            module.weight.data.copy_(torch.from_numpy(weights))
    theirs = TorchContext(again, 100)
    expected = theirs.read(IDS)
    found = packed.files.read(IDS)
    packed.files.truncate(0)
    assert close(found, expected, 0.03)
    assert not close(TorchContext(packed.before, 100).read(IDS), expected, 0.03)


def test_rounding_again_costs_less_than_awq_did(packed: Packed) -> None:
    """KL of the next token, against the checkpoint's own weights."""
    found = torch.as_tensor(packed.files.logits(packed.files.read(IDS)))
    packed.files.truncate(0)
    own, before = (
        torch.as_tensor(one.logits(one.read(IDS)))
        for one in (TorchContext(packed.own, 100), TorchContext(packed.before, 100))
    )
    assert 0 < divergence(own, found) < divergence(before, own)


def divergence(right: torch.Tensor, found: torch.Tensor) -> float:
    """KL(right || found) of logits [tokens, ids], in nats, mean of the tokens."""
    ours, theirs = (one.double().log_softmax(-1) for one in (found, right))
    return float((theirs.exp() * (theirs - ours)).sum(-1).mean())


@pytest.mark.parametrize("zero_point", [7, 8, 9])
def test_groups_with_their_zero_point_in_the_middle_stay_as_they_are(zero_point: int) -> None:
    """Zero points of 8 are left out by subtracting them. Of others one end has no code of ours."""
    weights = np.random.default_rng(0).standard_normal((64, 4 * BLOCK)).astype(np.float32)
    codes, zeros, scales = rounded(weights, BLOCK)
    values = plain(codes, zeros, scales).reshape(64, -1, BLOCK)
    found = quantise(values.reshape(64, -1)).weights().reshape(values.shape)
    chosen = np.equal(zeros.T, zero_point)
    assert chosen.sum() > 20
    exact = (found == values).all(2)[chosen]
    assert exact.all() if zero_point == 8 else not exact.any()

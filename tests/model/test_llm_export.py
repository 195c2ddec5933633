"""Both decoders leave torch: one graph for prefill and decode, caches as inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.speech import SpeechDecoder
from tests.model.decoders import random, relative_error, small_llm, small_speech

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
if torch.__version__ < (2, 6):
    pytest.skip("torch.onnx.export(dynamo=True) needs torch 2.6", allow_module_level=True)

CAPACITY = 24


class Step(nn.Module):
    """What a runtime runs: the caches go in and come out, as graphs write to nothing in place."""

    def __init__(self, stage: Llm | SpeechDecoder) -> None:
        super().__init__()
        self.stage = stage

    def forward(
        self, embeds: Tensor, positions: Tensor, mask: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k, v = k.clone(), v.clone()
        hidden = self.stage(embeds, positions, mask, k, v)
        return self.stage.head(hidden[-1:]), hidden, k, v


def inputs(embeds: Tensor, at: int, k: Tensor, v: Tensor) -> dict[str, Tensor]:
    positions = torch.arange(at, at + len(embeds))
    mask = torch.arange(CAPACITY) <= positions.unsqueeze(1)
    return {"embeds": embeds, "positions": positions, "mask": mask, "k": k, "v": v}


@pytest.fixture(params=[small_llm, small_speech], ids=["llm", "speech"])
def stage(request: pytest.FixtureRequest) -> Llm | SpeechDecoder:
    return request.param()


def test_one_graph_prefills_and_decodes(stage: Llm | SpeechDecoder, tmp_path: Path) -> None:
    cache = stage.cache(CAPACITY)
    embeds = random(9, stage.config.hidden)
    tokens = torch.export.Dim("tokens", min=1, max=CAPACITY)
    program = torch.onnx.export(
        Step(stage),
        kwargs=inputs(embeds[:5], 0, cache.k.clone(), cache.v.clone()),
        dynamic_shapes={
            "embeds": {0: tokens}, "positions": {0: tokens}, "mask": {0: tokens}, "k": None,
            "v": None,
        },
        output_names=["logits", "hidden", "k_out", "v_out"],
        dynamo=True,
        verbose=False,
    )  # fmt: skip
    program.save(tmp_path / "step.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx")

    k, v = cache.k.numpy().copy(), cache.v.numpy().copy()
    for start, stop in ((0, 6), (6, 7), (7, 9)):
        feed = inputs(embeds[start:stop], start, torch.from_numpy(k), torch.from_numpy(v))
        logits, hidden, k, v = session.run(None, {name: x.numpy() for name, x in feed.items()})
        expected = stage.extend(embeds[start:stop], cache)
        assert relative_error(hidden, expected) < 1e-5
        assert relative_error(logits, stage.head(expected[-1:])) < 1e-5
        assert np.abs(k - cache.k.numpy()).max() < 1e-5
        assert np.abs(v - cache.v.numpy()).max() < 1e-5

"""The vision stage leaves torch: one graph for any number of slices of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from minicpmo_ros.model.picture import batch
from tests.model.vision_stage import shown, tensors, vision_stage

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
if torch.__version__ < (2, 6):
    pytest.skip("torch.onnx.export(dynamo=True) needs torch 2.6", allow_module_level=True)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stage = vision_stage()
    slices = torch.export.Dim("slices", min=1, max=64)
    patches = torch.export.Dim("patches", min=2, max=8192)
    program = torch.onnx.export(
        stage,
        kwargs=tensors(batch(shown((640, 480), (480, 640), (448, 448)), stage.side)),
        dynamic_shapes={
            "pixels": {0: slices, 3: stage.vpm.embeddings.patch * patches},
            "position_ids": {0: slices, 1: patches},
            "cells": {0: slices, 1: patches},
            "mask": {0: slices, 1: patches},
        },
        dynamo=True,
    )
    assert program is not None
    path = tmp_path_factory.mktemp("graph") / "vision.onnx"
    program.save(path)
    return path


@pytest.mark.parametrize(
    "sizes, patches",
    [
        pytest.param([(640, 480)], None, id="one"),
        pytest.param([(640, 480)], 1088, id="one padded"),
        pytest.param([(60, 40), (1280, 720), (640, 480), (30, 400)], 1280, id="four"),
    ],
)
def test_the_graph_sees_what_the_stage_sees(
    graph: Path, sizes: list[tuple[int, int]], patches: int | None
) -> None:
    stage, parts = vision_stage(), shown(*sizes)
    given = tensors(batch(parts, stage.side, patches))
    session = onnxruntime.InferenceSession(graph)
    (found,) = session.run(None, {name: value.numpy() for name, value in given.items()})
    assert np.allclose(found, stage.look(parts).numpy(), atol=1e-5)

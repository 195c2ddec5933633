"""The vocoder leaves torch: one graph for any number of frames, at a turn's start and later."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from minicpmo_ros.model.hift.history import Array, Rendered
from minicpmo_ros.model.hift.stream import VocoderStream
from tests.model.decoders import relative_error
from tests.model.hift_network import SMALL, frames, small_vocoder

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
if torch.__version__ < (2, 6):
    pytest.skip("torch.onnx.export(dynamo=True) needs torch 2.6", allow_module_level=True)

NAMES = ("mel", "known_f0", "known_source", "before", "opening", "noise")


@pytest.fixture(scope="module")
def session() -> Any:
    given = (
        torch.zeros(SMALL.mels, 12),
        torch.zeros(12),
        torch.zeros(12, SMALL.samples_per_frame),
        torch.zeros(SMALL.harmonics),
        torch.tensor([True]),
        torch.zeros(12, SMALL.samples_per_frame, SMALL.harmonics),
    )
    count = torch.export.Dim("frames", min=2, max=4096)
    program = torch.onnx.export(
        small_vocoder(),
        given,
        input_names=NAMES,
        dynamic_shapes=({1: count}, {0: count}, {0: count}, None, None, {0: count}),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString())


@pytest.mark.parametrize("compat", [False, True])
def test_a_turn_sounds_the_same_through_the_graph(session: Any, compat: bool) -> None:
    def step(*given: Any) -> Rendered:
        arrays = [np.atleast_1d(np.asarray(one)) for one in given]
        return Rendered(*session.run(None, dict(zip(NAMES, arrays, strict=True))))

    def spoken(of: Any) -> Array:
        stream = VocoderStream(of, SMALL, reference_compat=compat)
        mel, ends = frames(60), [0, 11, 14, 40, 60]
        return np.concatenate([stream.push(mel[:, a:b], last=b == 60) for a, b in pairwise(ends)])

    assert relative_error(spoken(step), spoken(small_vocoder().render)) < 1e-3

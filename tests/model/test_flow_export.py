"""The stages of the flow network leave torch: one graph each for chunks and pasts of any length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minicpmo_ros.model.flow.tiny import TINY, random_flow
from tests.model.audio_stage import relative_error

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
if torch.__version__ < (2, 6):
    pytest.skip("torch.onnx.export(dynamo=True) needs torch 2.6", allow_module_level=True)

FLOW = random_flow(seed=1)
HEAD_DIM = 8
AUTO = torch.export.Dim.AUTO


def session(stage: nn.Module, given: dict[str, Tensor], dynamic: dict[str, Any]) -> Any:
    program = torch.onnx.export(
        stage, kwargs=given, dynamic_shapes=dynamic, dynamo=True, verbose=False
    )
    assert program is not None
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString())


def check(running: Any, stage: nn.Module, given: dict[str, Tensor]) -> None:
    named = {one.name for one in running.get_inputs()}
    found = running.run(None, {name: x.numpy() for name, x in given.items() if name in named})
    for part, expected in zip(found, stage(**given), strict=True):
        assert relative_error(part, expected) < 1e-5


def tokens(new: int, past: int, hidden: int = 0) -> dict[str, Tensor]:
    """Inputs of the token encoder; the first `hidden` rows of the past are not seen."""
    sizes = TINY.conformer
    table, up_table = torch.randn(3, 4, 499, HEAD_DIM), torch.randn(2, 4, 999, HEAD_DIM)
    seen = torch.ones(new, past + new, dtype=torch.bool)
    seen[:, :hidden] = False
    return {
        "ids": torch.randint(0, TINY.tokens, (new + 3,)),
        "known": torch.arange(new + 3) < new + 1,
        "before": torch.randn(sizes.hidden, 2),
        "up_before": torch.randn(sizes.hidden, 4),
        "distances": table[:, :, : past + 2 * new - 1],
        "up_distances": up_table[:, :, : 2 * past + 4 * new - 1],
        "k": torch.randn(3, 4, past, HEAD_DIM),
        "v": torch.randn(3, 4, past, HEAD_DIM),
        "up_k": torch.randn(2, 4, 2 * past, HEAD_DIM),
        "up_v": torch.randn(2, 4, 2 * past, HEAD_DIM),
        "seen": seen,
    }


def frames(new: int, past: int) -> dict[str, Tensor]:
    sizes, mels = TINY.estimator, TINY.mels
    return {
        "x": torch.randn(new, mels),
        "mean": torch.randn(new, mels),
        "voice": torch.randn(mels),
        "known": torch.randn(new, mels),
        "modulation": torch.randn(sizes.layers, 9, sizes.hidden),
        "last_modulation": torch.randn(2, sizes.hidden),
        "before": torch.randn(sizes.layers, 2, 2 * sizes.hidden, 2),
        "k": torch.randn(sizes.layers, 2, sizes.heads, past, sizes.head_dim),
        "v": torch.randn(sizes.layers, 2, sizes.heads, past, sizes.head_dim),
        "seen": torch.rand(new, past + new) < 0.9,
    }


def test_the_token_encoder_as_onnx() -> None:
    # One graph for chunks of 25 tokens, whatever they have behind them.
    dynamic: dict[str, Any] = dict.fromkeys(tokens(2, 2))
    for name in ("k", "v", "up_k", "up_v", "distances", "up_distances"):
        dynamic[name] = {2: AUTO}
    dynamic["seen"] = {1: AUTO}
    running = session(FLOW.encoder, tokens(25, 40), dynamic)
    for past, hidden in ((40, 0), (110, 30)):
        check(running, FLOW.encoder, tokens(25, past, hidden))


def test_the_estimator_as_onnx() -> None:
    dynamic: dict[str, Any] = dict.fromkeys(frames(2, 2))
    dynamic |= {name: {0: AUTO} for name in ("x", "mean", "known")}
    dynamic |= {"k": {3: AUTO}, "v": {3: AUTO}, "seen": {0: AUTO, 1: AUTO}}
    running = session(FLOW.estimator, frames(50, 120), dynamic)
    for new, past in ((50, 120), (16, 220), (50, 24)):
        check(running, FLOW.estimator, frames(new, past))


def test_the_voice_projection_as_onnx() -> None:
    given = {"voice": torch.randn(TINY.voice)}
    running = session(FLOW.voice, given, {"voice": None})
    (found,) = running.run(None, {"voice": given["voice"].numpy()})
    assert relative_error(found, FLOW.voice(**given)) < 1e-5


def test_rows_that_are_not_seen_have_no_effect() -> None:
    """So a cache may have a fixed size, what it holds at its end."""
    given = tokens(5, 20)
    filled = tokens(5, 32, hidden=12) | {
        name: given[name] for name in ("ids", "known", "before", "up_before")
    }
    for name, rows in (("k", 12), ("v", 12), ("up_k", 24), ("up_v", 24)):
        filled[name][:, :, rows:] = given[name]
    for name, rows in (("distances", 12), ("up_distances", 24)):
        filled[name][:, :, rows:] = given[name]
    for found, expected in zip(FLOW.encoder(**filled), FLOW.encoder(**given), strict=True):
        assert relative_error(found, expected) < 1e-5

    given = frames(10, 20) | {"seen": torch.ones(10, 30, dtype=torch.bool)}
    filled = given | {name: frames(10, 32)[name] for name in ("k", "v")}
    filled["seen"] = torch.arange(42).expand(10, 42) >= 12
    for name in ("k", "v"):
        filled[name][:, :, :, 12:] = given[name]
    for found, expected in zip(FLOW.estimator(**filled), FLOW.estimator(**given), strict=True):
        assert relative_error(found, expected) < 1e-5

"""How each piece of the vocoder becomes a file, and where in its assets the weights are.

Weights have the names of flow.pt behind "flow.", and those of hift.pt behind "hift.".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from minicpmo_ros.model.flow.config import ESTIMATOR, FlowConfig
from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.fourier import Fourier, InverseFourier
from minicpmo_ros.model.hift.source import Source
from minicpmo_ros.model.hift.vocoder import Vocoder
from minicpmo_ros.model.hift.weights import PREFIX
from minicpmo_ros.model.vocoder import FLOW, HIFT, VocoderConfig
from minicpmo_ros.runtime.engines.pieces import Piece
from minicpmo_ros.runtime.export.vocoder_graphs import EncoderStep, EstimatorStep
from minicpmo_ros.runtime.export.writer import Plan, Read, matrices

MOST_FRAMES = 8192


def plan(piece: Piece, config: VocoderConfig) -> Plan:
    """What `writer.export` makes of a piece that is a graph."""
    if piece.name == "hift":
        return hift_plan(config.hift)
    how: Any = {"precision": piece.precision, "dtype": piece.dtype}
    if piece.name == "flow.encoder":
        return encoder_plan(config.flow, **how)
    return estimator_plan(config.flow, **how)


def weights(piece: Piece, config: VocoderConfig, read: Read) -> Read:
    """What reads the weights of a piece by their names in its graph, of what reads the assets."""
    if piece.name == "hift":
        # What is no weight, but would be traced without its values.
        constants = _constants(config.hift)
        return lambda name: (
            constants[name].numpy() if name in constants else read(HIFT + name.removeprefix(PREFIX))
        )
    prefix = FLOW + (ESTIMATOR if piece.name == "flow.estimator" else "")
    return lambda name: read(prefix + name)


# Examples are tensors of their own, each: one that is given twice is traced as one input.


def encoder_plan(config: FlowConfig, *, precision: str = "fp32", dtype: str = "float32") -> Plan:
    """See `vocoder_graphs.EncoderStep`."""
    sizes = config.conformer
    rows, ids = torch.export.Dim("rows", min=2), torch.export.Dim("ids", min=sizes.look_ahead + 2)

    def example() -> tuple[Any, ...]:
        tokens = 5 + sizes.look_ahead
        head_dim = sizes.hidden // sizes.heads
        past = (sizes.layers, sizes.heads, 7, head_dim)
        up_past = (sizes.up_layers, sizes.heads, 7 * sizes.up, head_dim)
        return (
            torch.zeros(tokens, dtype=torch.int64),
            torch.ones(tokens, dtype=torch.bool),
            torch.tensor([3]),
            torch.zeros(sizes.hidden, 2),
            torch.zeros(sizes.hidden, 2 * sizes.up),
            *map(torch.zeros, (past, past, up_past, up_past)),
        )

    past, up_past = {2: rows}, {2: sizes.up * rows}
    return Plan(
        make=lambda: EncoderStep(config),
        example=example,
        dynamic=({0: ids}, {0: ids}, None, None, None, past, past, up_past, up_past),
        inputs=["ids", "known", "filled", "before", "up_before", "k", "v", "up_k", "up_v"],
        outputs=["mean", "new_before", "new_up_before", "own_k", "own_v", "own_up_k", "own_up_v"],
        bits=matrices(
            precision, "linear_q", "linear_k", "linear_v", "linear_out", "w_1", "w_2", "out.0"
        ),
        dtype=dtype,
    )


def estimator_plan(config: FlowConfig, *, precision: str = "fp32", dtype: str = "float32") -> Plan:
    """See `vocoder_graphs.EstimatorStep`."""
    sizes, mels = config.estimator, config.mels
    rows, frames = torch.export.Dim("rows", min=2), torch.export.Dim("frames", min=2)

    def example() -> tuple[Any, ...]:
        past = (sizes.layers, 2, sizes.heads, 7, sizes.head_dim)
        return (
            *map(torch.zeros, ((5, mels), (5, mels), (mels,), (5, mels))),
            torch.zeros(sizes.layers, 9, sizes.hidden),
            torch.zeros(2, sizes.hidden),
            torch.tensor([3, 6]),
            torch.zeros(sizes.layers, 2, 2 * sizes.hidden, sizes.kernel - 1),
            *map(torch.zeros, (past, past)),
        )

    new, past = {0: frames}, {3: rows}
    return Plan(
        make=lambda: EstimatorStep(config),
        example=example,
        dynamic=(new, new, None, new, None, None, None, None, past, past),
        inputs=[
            *("x", "mean", "voice", "known", "modulation", "last_modulation", "filled"),
            *("before", "k", "v"),
        ],
        outputs=["velocities", "new_before", "own_k", "own_v"],
        bits=matrices(precision, "to_q", "to_k", "to_v", "attn.proj", "fc1", "fc2"),
        dtype=dtype,
    )


def hift_plan(config: HiftConfig) -> Plan:
    """See `model.hift.vocoder.Vocoder`; always in single precision: phases are sums over a turn."""
    frames = torch.export.Dim("frames", min=2, max=MOST_FRAMES)

    def example() -> tuple[Any, ...]:
        size = config.samples_per_frame
        return (
            torch.zeros(config.mels, 12),
            torch.zeros(12),
            torch.zeros(12, size),
            torch.zeros(config.harmonics),
            torch.tensor([True]),
            torch.zeros(12, size, config.harmonics),
        )

    return Plan(
        make=lambda: Vocoder(config),
        example=example,
        dynamic=({1: frames}, {0: frames}, {0: frames}, None, None, {0: frames}),
        inputs=["mel", "known_f0", "known_source", "before", "opening", "noise"],
        outputs=["samples", "f0", "source", "cycles"],
    )


@lru_cache(maxsize=2)
def _constants(config: HiftConfig) -> dict[str, torch.Tensor]:
    """Of `Vocoder`, by name: buffers that are not in a state dict."""
    parts = {
        "m_source": Source(config),
        "generator.fourier": Fourier(config.n_fft, config.hop),
        "generator.inverse": InverseFourier(config.n_fft, config.hop),
    }
    return {
        f"{place}.{name}": buffer
        for place, part in parts.items()
        for name, buffer in part.named_buffers()
    }

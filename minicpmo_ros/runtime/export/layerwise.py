"""The language model one layer at a time: the weights of one layer, and all tokens through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.decoder import PREFILL_BLOCK, Layer
from minicpmo_ros.model.part_configs import LlmConfig
from minicpmo_ros.model.rope import angles

if TYPE_CHECKING:
    from minicpmo_ros.runtime.export.writer import Read

Progress = Callable[[int, int], None]
"""Called with the layers that are done, and how many there are."""


@dataclass(frozen=True, eq=False)
class CalibrationSequence:
    """What the language model read in one conversation.

    embeds: float32 [T, hidden]. decisions: the rows behind which it decided whether to listen or
    to speak.
    """

    embeds: NDArray[np.float32]
    decisions: tuple[int, ...] = ()


def load_layer(read: Read, config: LlmConfig, index: int) -> Layer:
    """One layer in float32."""
    with torch.device("meta"):
        layer = Layer(config, norm_heads=True)
    state = {name: read(f"llm.model.layers.{index}.{name}") for name in layer.state_dict()}
    layer.load_state_dict({n: torch.from_numpy(w) for n, w in state.items()}, assign=True)
    return layer.requires_grad_(False).eval()


@torch.inference_mode()
def through(layer: Layer, config: LlmConfig, hidden: Tensor) -> Tensor:
    """A conversation [T, hidden] from its first token on through a layer: [T, hidden]."""
    tokens, groups = len(hidden), config.heads // config.kv_heads
    k, v = (torch.zeros(config.kv_heads, tokens, config.head_dim) for _ in range(2))
    angle = angles(torch.arange(tokens), config.head_dim, config.rope_theta)
    out = torch.empty_like(hidden)
    for start in range(0, tokens, PREFILL_BLOCK):
        stop = min(start + PREFILL_BLOCK, tokens)
        rows = torch.arange(start, stop)
        unseen = torch.arange(stop) > rows.unsqueeze(1)
        bias = torch.zeros(stop - start, stop).masked_fill(unseen, -torch.inf).repeat(groups, 1)
        cos, sin = angle[start:stop].cos(), angle[start:stop].sin()
        out[start:stop] = layer(hidden[start:stop], rows, cos, sin, bias, k[:, :stop], v[:, :stop])
    return out


def normed(hidden: Tensor, gain: NDArray[np.float32], config: LlmConfig) -> Tensor:
    """The final norm."""
    return torch.nn.functional.rms_norm(
        hidden, (config.hidden,), torch.from_numpy(gain), config.norm_eps
    )


def checked(sequences: Sequence[CalibrationSequence], config: LlmConfig) -> list[Tensor]:
    """Their embeddings, copied; raises EngineError for those that are of no use."""
    found = []
    for number, one in enumerate(sequences):
        shape, last = one.embeds.shape, max(one.decisions, default=0)
        if len(shape) != 2 or shape[1] != config.hidden or not len(one.embeds):
            raise EngineError(
                f"calibration sequence {number} is {list(shape)}, not [tokens, {config.hidden}]"
            )
        if not np.isfinite(one.embeds).all():
            raise EngineError(f"calibration sequence {number} has NaN or infinity in it")
        if min(one.decisions, default=0) < 0 or last >= shape[0]:
            raise EngineError(
                f"calibration sequence {number} decides behind row {last} of {shape[0]}"
            )
        found.append(torch.from_numpy(one.embeds.astype(np.float32)))
    if not found:
        raise EngineError("there is no calibration sequence; one conversation is the least")
    return found

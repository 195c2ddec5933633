"""Networks of any size with random weights, made in memory: what is timed need not be wise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.packed import pack
from minicpmo_ros.model.speech import SpeechDecoder
from minicpmo_ros.model.vision import VisionStage
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

Stage = TypeVar("Stage", bound=nn.Module)

# So many different numbers are drawn and repeated: 9 billion would take minutes.
BLOCK = 2**20
DEVIATION = 0.02


def random_stage(
    make: Callable[[], Stage], dtype: torch.dtype, device: torch.device, packed: bool = True
) -> Stage:
    """A stage with random weights of this dtype; gains are one. packed: on a CPU; see `pack`."""
    with torch.device("meta"):
        stage = make()
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)) * DEVIATION
    block = block.to(device=device, dtype=dtype)
    state = {name: _filled(one.shape, block) for name, one in stage.named_parameters()}
    stage.load_state_dict(state, assign=True)
    stage.requires_grad_(False).eval()
    if packed and device.type == "cpu":
        pack(stage)
    return stage


def random_network(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> TorchNetwork:
    """All stages."""
    c = config
    return TorchNetwork(
        c,
        random_stage(lambda: VisionStage(c.vision, c.resampler), dtype, device),
        random_stage(lambda: Audio(c.audio), dtype, device),
        random_stage(lambda: Llm(c.llm), dtype, device),
        random_stage(lambda: SpeechDecoder(c.speech_sizes()), dtype, device),
    )


def _filled(shape: torch.Size, block: Tensor) -> Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=block.dtype, device=block.device)
    whole = torch.empty(shape.numel(), dtype=block.dtype, device=block.device)
    for start in range(0, len(whole), BLOCK):
        piece = whole[start : start + BLOCK]
        piece.copy_(block[: len(piece)])
    return whole.view(shape)

"""The flow network whole: its three stages, by the names that the published weights have."""

from __future__ import annotations

import torch
from torch import nn

from minicpmo_ros.model.flow.config import ESTIMATOR, FlowConfig
from minicpmo_ros.model.flow.encoder import TokenEncoder, VoiceProjection
from minicpmo_ros.model.flow.estimator import Estimator

# Where the parameters of a stage are in the published weights.
_STAGES = {
    "voice": ("spk_embed_affine_layer.",),
    "encoder": ("input_embedding.", "encoder.", "encoder_proj."),
    "estimator": (ESTIMATOR,),
}


class Flow(nn.Module):
    """voice, encoder and estimator are what runs; a `stream.FlowStream` runs them."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.voice = VoiceProjection(config)
        self.encoder = TokenEncoder(config)
        self.estimator = Estimator(config)

    @property
    def device(self) -> torch.device:
        return self.encoder.encoder_proj.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.encoder_proj.weight.dtype


def own_name(published: str) -> str | None:
    """The parameter of `Flow` that a tensor of flow.pt is, or None."""
    for stage, prefixes in _STAGES.items():
        for prefix in prefixes:
            if published.startswith(prefix):
                name = published.removeprefix(ESTIMATOR)
                return f"{stage}.{name}"
    return None


def published_name(own: str) -> str:
    """The tensor of flow.pt that a parameter of `Flow` is."""
    stage, name = own.split(".", 1)
    return f"{ESTIMATOR}{name}" if stage == "estimator" else name


def published_shapes(config: FlowConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a flow.pt of these sizes, in alphabetical order."""
    with torch.device("meta"):
        state = Flow(config).state_dict()
    return dict(sorted((published_name(name), tuple(x.shape)) for name, x in state.items()))

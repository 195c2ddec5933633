"""The flow network whole: its three stages, by the names that the published weights have."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from minicpmo_ros.model.flow.cache import EncoderCache
from minicpmo_ros.model.flow.config import ESTIMATOR, FlowConfig
from minicpmo_ros.model.flow.encoder import TokenEncoder, VoiceProjection
from minicpmo_ros.model.flow.estimator import Estimator
from minicpmo_ros.model.flow.relative import window
from minicpmo_ros.model.flow.stages import Array, Encoded
from minicpmo_ros.model.flow.torch_solver import TorchSolver

# Where the parameters of a stage are in the published weights.
_STAGES = {
    "voice": ("spk_embed_affine_layer.",),
    "encoder": ("input_embedding.", "encoder.", "encoder_proj."),
    "estimator": (ESTIMATOR,),
}


# Tables of distances grow by so many tokens.
MORE_DISTANCES = 50


class Flow(nn.Module):
    """voice, encoder and estimator are what runs; for a `stream.FlowStream` they are
    `stages.FlowStages`."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.voice = VoiceProjection(config)
        self.encoder = TokenEncoder(config)
        self.estimator = Estimator(config)
        self._radius = 0

    @torch.inference_mode()
    def conditioning(self, voice: Array) -> Array:
        """See `stages.FlowStages`."""
        return self.voice(torch.from_numpy(voice).to(self.device)).float().cpu().numpy()

    @torch.inference_mode()
    def encode(
        self, ids: NDArray[np.int64], known: NDArray[np.bool_], past: EncoderCache
    ) -> Encoded:
        """See `stages.FlowStages`."""
        up, rows = self.config.conformer.up, past.tokens
        tokens = len(ids) - self.config.conformer.look_ahead
        if rows + tokens > self._radius:
            self._radius = rows + tokens + MORE_DISTANCES
            self._distances = self.encoder.encoder.distances(self._radius)
        before, up_before, *caches = (
            torch.from_numpy(array).to(self.device, self.dtype)
            for array in (past.before, past.up_before, past.k, past.v, past.up_k, past.up_v)
        )
        found = self.encoder(
            torch.from_numpy(ids).to(self.device),
            torch.from_numpy(known).to(self.device),
            before,
            up_before,
            window(self._distances[0], rows, tokens),
            window(self._distances[1], up * rows, up * tokens),
            *caches,
        )
        return Encoded(*(part.float().cpu().numpy() for part in found))

    def solver(self, times: Array, slots: int) -> TorchSolver:
        """See `stages.FlowStages`."""
        starts = torch.from_numpy(times).to(self.device)
        return TorchSolver(self.estimator, self.config.estimator, starts, slots)

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

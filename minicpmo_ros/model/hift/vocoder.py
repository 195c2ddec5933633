"""The whole vocoder as one stage: it keeps nothing, all that goes on between calls comes in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minicpmo_ros.model.hift.config import HiftConfig
from minicpmo_ros.model.hift.f0 import F0Predictor
from minicpmo_ros.model.hift.generator import Generator
from minicpmo_ros.model.hift.history import UNKNOWN, Array, Rendered
from minicpmo_ros.model.hift.source import Source


class Vocoder(nn.Module):
    """mel, and what is known of it from before, to samples."""

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        self.f0_predictor = F0Predictor(config)
        self.m_source = Source(config)
        self.generator = Generator(config)

    def forward(
        self,
        mel: Tensor,
        known_f0: Tensor,
        known_source: Tensor,
        before: Tensor,
        opening: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Some frames of a stream, or a whole sound.

        Args:
            mel: float32 [mels, frames], frames of before included.
            known_f0: Hz [frames]; `history.UNKNOWN` where it is to be predicted.
            known_source: [frames, samples_per_frame]; UNKNOWN where it is to be made.
            before, opening, noise: see `Source.forward`.

        Returns:
            Samples [frames, samples_per_frame]; f0, Hz [frames]; the source as known_source; and
            the phase in the middle of each frame, in cycles [frames, harmonics].
        """
        f0 = _known_or(known_f0, self.f0_predictor(mel))
        made, cycles = self.m_source(f0, before, opening, noise)
        source = _known_or(known_source, made)
        samples = self.generator(mel, source.flatten()).view_as(source)
        return samples, f0, source, cycles

    @torch.inference_mode()
    def render(
        self,
        mel: Array,
        known_f0: Array,
        known_source: Array,
        before: Array,
        opening: bool,
        noise: Array,
    ) -> Rendered:
        """The same for arrays: a `history.Step`."""
        device = self.generator.conv_pre.weight.device
        arrays = (mel, known_f0, known_source, before, [opening], noise)
        given = [torch.as_tensor(array, device=device) for array in arrays]
        return Rendered(*(tensor.cpu().numpy() for tensor in self(*given)))


def _known_or(known: Tensor, made: Tensor) -> Tensor:
    return torch.where(known != UNKNOWN, known, made)

"""The voice's source: sines at the pitch and its multiples where there is voice, noise elsewhere.

The neural source filter of Wang et al. (2019) in the form that CosyVoice 2 has for 24 kHz: the
phase moves evenly from the middle of a frame to the middle of the next.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from minicpmo_ros.model.hift.config import HiftConfig


class Source(nn.Module):
    """Nothing random is in here: the noise comes in, and the phase goes on from where it was.

    The published code draws a phase for each harmonic, too, but adds it to a sample that its
    interpolation then skips, so every harmonic begins at zero there as here.
    """

    places: Tensor

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        self.l_linear = nn.Linear(config.harmonics, 1)
        size = config.samples_per_frame
        # Of each sample in its frame, as shares of a frame from the middle: -0.5 to 0.5.
        places = (torch.arange(size, device="cpu") + 0.5) / size - 0.5
        self.register_buffer("places", places, persistent=False)

    def forward(
        self, f0: Tensor, before: Tensor, opening: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Some frames of a source.

        Args:
            f0: Hz [frames].
            before: [harmonics], the phase in the middle of the frame before these, in cycles.
            opening: bool [1], there is none before, so the phase stands still until the middle of
                the first frame. After the last, it stands still, too.
            noise: [frames, samples_per_frame, harmonics], of deviation one.

        Returns:
            The source [frames, samples_per_frame], in -1..1; and the phase in the middle of each
            frame, in cycles [frames, harmonics], 0 to 1.
        """
        config = self.config
        multiples = torch.arange(1, config.harmonics + 1, device=f0.device)
        per_sample = f0[:, None] * multiples / config.rate_hz
        steps = _fraction(per_sample) * config.samples_per_frame
        # Whole cycles are dropped before they are summed: single precision counts few of them.
        cycles = _fraction(before + _fraction(steps).cumsum(0))

        still = torch.zeros_like(steps[:1])
        first = torch.where(opening, still, steps[:1])
        to_middle = torch.cat((first, steps[1:]))
        from_middle = torch.cat((steps[1:], still))
        places = self.places[None, :, None]
        moved = places * torch.where(places < 0, to_middle[:, None], from_middle[:, None])
        phase = 2 * math.pi * _fraction(cycles[:, None] + moved)

        voiced = (f0 > config.voiced_hz).to(f0.dtype)[:, None, None]
        loudness = voiced * config.noise + (1 - voiced) * config.sine / 3
        waves = phase.sin() * config.sine * voiced
        waves = waves + loudness * noise
        return self.l_linear(waves)[:, :, 0].tanh(), cycles


def _fraction(x: Tensor) -> Tensor:
    return x - x.floor()

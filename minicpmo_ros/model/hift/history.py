"""What a vocoder's stream keeps of the frames before, and the noise of each frame. No torch.

There are two histories. `Continued` makes of every frame the source that a whole sound would have:
pitch is predicted again once the frames around are known, and the phase goes on. `Restarted` does
what the published code does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.hift.config import HiftConfig

Array = NDArray[np.float32]
Noise = Callable[[int, int], Array]
"""Of the frames from the first number up to the second of a turn: float32 [frames,
samples_per_frame, harmonics]."""

# In place of a pitch or a sample of the source that is not known. No pitch is negative, and the
# source is within -1..1.
UNKNOWN = -2.0
# Frames that sound twice, first as the end of a chunk and then as the start of the next: 160 ms.
OVERLAP = 8


class Rendered(NamedTuple):
    """What a step gives: float32 arrays, as `vocoder.Vocoder.forward` has them."""

    samples: Array
    f0: Array
    source: Array
    cycles: Array


class Step(Protocol):
    """A vocoder, whatever it is computed in; see `vocoder.Vocoder.forward`."""

    def __call__(
        self,
        mel: Array,
        known_f0: Array,
        known_source: Array,
        before: Array,
        opening: bool,
        noise: Array,
    ) -> Rendered: ...


class History(Protocol):
    def render(self, mel: Array) -> Array:
        """New frames [mels, frames] behind what is kept: samples [kept and new frames,
        samples_per_frame]. OVERLAP frames or more are kept, save at the start of a turn."""


def seeded_noise(seed: int, config: HiftConfig) -> Noise:
    """Noise that follows from the seed and a frame's number in its turn alone.

    Raises:
        ConfigError: the seed is negative or has more than 64 bits.
    """
    if not 0 <= seed < 2**64:
        raise ConfigError(f"the vocoder's seed is {seed}, not 0 to 2**64 - 1")
    shape = config.samples_per_frame, config.harmonics

    def noise(first: int, stop: int) -> Array:
        whole: Array = np.empty((stop - first, *shape), np.float32)
        for frame, place in zip(range(first, stop), whole, strict=True):
            key = np.array([seed, frame], np.uint64)
            np.random.Generator(np.random.Philox(key=key)).standard_normal(
                dtype=np.float32, out=place
            )
        return whole

    return noise


class Continued:
    """Pitch and phase of all that is emitted are those of the whole sound.

    The pitch of a frame depends on some frames to each side, five as published. So that of a
    chunk's last five is provisional, and heard only in the part that the next chunk fades out.
    """

    def __init__(self, step: Step, config: HiftConfig, noise: Noise) -> None:
        self.step, self.config, self.noise = step, config, noise
        self.mel: Array = np.zeros((config.mels, 0), np.float32)
        self.start = 0  # the first kept frame's number in the turn
        self.f0: Array = np.zeros(0, np.float32)  # of the first kept frames, final
        self.before: Array = np.zeros(config.harmonics, np.float32)

    def render(self, mel: Array) -> Array:
        config = self.config
        mel = np.concatenate((self.mel, mel), axis=1)
        frames = mel.shape[1]
        known_f0 = np.full(frames, UNKNOWN, np.float32)
        known_f0[: len(self.f0)] = self.f0
        rendered = self.step(
            mel,
            known_f0,
            np.full((frames, config.samples_per_frame), UNKNOWN, np.float32),
            self.before,
            self.start == 0,
            self.noise(self.start, self.start + frames),
        )
        reach = config.f0_reach
        kept = min(max(OVERLAP, 2 * reach), frames)
        first = frames - kept
        if first:
            self.before = rendered.cycles[first - 1]
        self.mel, self.start = mel[:, first:], self.start + first
        self.f0 = rendered.f0[first : max(frames - reach, first)]
        return rendered.samples


class Restarted:
    """Every chunk's phase begins at zero; the source of the frames that were kept stays as it was.

    So a voice's phase jumps behind every overlap. As in minicpmo-utils 1.0.6.
    """

    def __init__(self, step: Step, config: HiftConfig, noise: Noise) -> None:
        self.step, self.config, self.noise = step, config, noise
        self.mel: Array = np.zeros((config.mels, 0), np.float32)
        self.start = 0
        self.source: Array = np.zeros((0, config.samples_per_frame), np.float32)

    def render(self, mel: Array) -> Array:
        config = self.config
        mel = np.concatenate((self.mel, mel), axis=1)
        frames = mel.shape[1]
        known_source = np.full((frames, config.samples_per_frame), UNKNOWN, np.float32)
        known_source[: len(self.source)] = self.source
        rendered = self.step(
            mel,
            np.full(frames, UNKNOWN, np.float32),
            known_source,
            np.zeros(config.harmonics, np.float32),
            True,
            self.noise(self.start, self.start + frames),
        )
        first = frames - min(OVERLAP, frames)
        self.mel, self.start = mel[:, first:], self.start + first
        self.source = rendered.source[first:]
        return rendered.samples

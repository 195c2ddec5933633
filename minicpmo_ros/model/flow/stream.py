"""Speech tokens to frames of sound, as they come: a voice's stream, of one turn after the other.

Chunks are the caller's. Frames of a chunk see each other, all that is kept of the frames before
(`rows`), and by the encoder's convolution some tokens ahead, which are held back until those are
known; so a frame depends on where its chunk ends, for what comes later in the same chunk it sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minicpmo_ros.errors import ConfigError, InputError, NumericsError
from minicpmo_ros.model.flow.cache import EncoderCache, EstimatorCache
from minicpmo_ros.model.flow.config import SILENCE
from minicpmo_ros.model.flow.network import Flow
from minicpmo_ros.model.flow.noise import Noise
from minicpmo_ros.model.flow.prompt import VoicePrompt, checked_prompt, checked_tokens
from minicpmo_ros.model.flow.relative import window
from minicpmo_ros.model.flow.rows import Forget
from minicpmo_ros.model.flow.solver import guided, schedule

MelFrames = NDArray[np.float32]
# More tokens are taken as several chunks: what is computed at once stays bounded.
LARGEST_CHUNK = 50
MOST_STEPS = 100


@dataclass(frozen=True)
class FlowOptions:
    """steps: of the solver; the published default is 10, and 5 and 3 are in use. guidance: None for
    the network's own. seed: of the noise. forget: see `rows.Forget`. noise: by the `place` of a
    frame in the turn; or, as the reference does, by the rows in the `cache`, so that every chunk
    behind a full cache has the same.

    Raises:
        ConfigError: one is out of its range.
    """

    steps: int = 10
    guidance: float | None = None
    seed: int = 0
    forget: Forget = "reference"
    noise: Literal["place", "cache"] = "place"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise ConfigError(f"flow: steps is {self.steps}, not between 1 and {MOST_STEPS}")
        if self.guidance is not None and not 0 <= self.guidance < float("inf"):
            raise ConfigError(f"flow: guidance is {self.guidance}, not 0 or more")
        if self.seed < 0:
            raise ConfigError(f"flow: seed is {self.seed}, not 0 or more")
        if self.forget not in get_args(Forget):
            raise ConfigError(f"flow: forget is {self.forget!r}, neither reference nor oldest")
        if self.noise not in ("place", "cache"):
            raise ConfigError(f"flow: noise is {self.noise!r}, neither place nor cache")


class FlowStream:
    """A voice, and the turn that is being said in it.

    Args:
        flow: its weights' dtype and device are those of the stream.
        prompt: the voice. It is read once, here; a turn begins behind it.
        silence: the token that fills up the look-ahead behind the prompt.

    Raises:
        InputError: the prompt is of no use.
    """

    @torch.inference_mode()
    def __init__(
        self,
        flow: Flow,
        prompt: VoicePrompt,
        options: FlowOptions | None = None,
        silence: int = SILENCE,
    ) -> None:
        self.flow, self.options = flow, options or FlowOptions()
        config, self._device = flow.config, flow.device
        self.look_ahead = config.conformer.look_ahead
        guidance = self.options.guidance
        self.guidance = config.guidance if guidance is None else guidance
        self.prompt = checked_prompt(prompt, config)
        self._times = schedule(self.options.steps)
        self._noise = Noise(config.mels, self.options.seed)
        self._voice = flow.voice(self._tensor(self.prompt.voice))
        starts = torch.from_numpy(self._times[:-1]).to(self._device)
        self._modulation = flow.estimator.modulation(starts)
        self._radius = 0
        self._read_prompt(checked_tokens([silence] * self.look_ahead, config.tokens))
        self.reset()

    def reset(self) -> None:
        """Begin a turn behind the prompt; nothing of the last one is left."""
        self._encoded = self._prompt_encoded
        self._estimated.reset()
        self._pending = np.zeros(0, dtype=np.int64)
        self._place = len(self.prompt.mel)
        self._ended = False

    @property
    def pending(self) -> int:
        """Tokens that wait for those that follow them."""
        return len(self._pending)

    @property
    def nbytes(self) -> int:
        """Memory of the solver's caches, which are most of what a stream takes."""
        return self._estimated.nbytes

    @torch.inference_mode()
    def push(self, tokens: Sequence[int] | NDArray[np.integer], last: bool = False) -> MelFrames:
        """Tokens that are next, any number of them.

        Args:
            last: no more follow in this turn, so those that waited for others are said, too.

        Returns:
            Frames [frames, mels], natural logarithms of magnitudes; 2 for each token that has
            `look_ahead` behind it or is in the last chunk, so there may be none.

        Raises:
            InputError: a token is no code of speech, or the turn has ended; nothing has changed.
            NumericsError: the network gave NaN; `reset` before anything else.
        """
        new = checked_tokens(tokens, self.flow.config.tokens)
        if self._ended:
            raise InputError("the turn has ended; `reset` begins the next one")
        self._ended = True  # whatever breaks off in the middle
        waiting = np.concatenate((self._pending, new))
        done = max(len(waiting) - (0 if last else self.look_ahead), 0)
        frames = [np.zeros((0, self.flow.config.mels), dtype=np.float32)]
        for start in range(0, done, LARGEST_CHUNK):
            stop = min(start + LARGEST_CHUNK, done)
            frames.append(self._chunk(waiting[start : stop + self.look_ahead], stop - start))
        found = np.concatenate(frames)
        if not np.isfinite(found).all():
            raise NumericsError("the flow network gave NaN; reset the stream, check its weights")
        self._pending = waiting[done:]
        self._ended = last
        return found

    def _chunk(self, ids: NDArray[np.int64], tokens: int) -> MelFrames:
        mean, own = self._encode(ids, tokens, self._encoded)
        config = self.flow.config
        prompt = len(self.prompt.tokens)
        after = self._encoded.followed_by(own, prompt, config.conformer.up, self.options.forget)
        cache = self._estimated
        place = self._place if self.options.noise == "place" else cache.slots.length
        past = [cache.past(step) for step in range(self.options.steps)]
        kept, slots = (
            torch.tensor(x, dtype=torch.int64, device=self._device)
            for x in cache.slots.push(len(mean))
        )
        x = self._tensor(self._noise.frames(place, len(mean)))
        known = torch.zeros_like(mean)
        for step in range(self.options.steps):
            x, rows = self._step(step, x, mean, known, past[step])
            cache.store(step, *rows, kept, slots)
        self._encoded = after
        self._place += len(mean)
        return x.float().cpu().numpy()

    def _read_prompt(self, following: NDArray[np.int64]) -> None:
        options, prompt, config = self.options, self.prompt, self.flow.config
        dtype = self.flow.dtype
        ids = np.concatenate((prompt.tokens, following))
        nothing = EncoderCache.empty(config, dtype, self._device)
        mean, own = self._encode(ids, len(prompt.tokens), nothing)
        self._prompt_encoded = nothing.followed_by(
            own, len(prompt.tokens), config.conformer.up, options.forget
        )
        sizes = (options.steps, len(prompt.mel), options.forget)
        self._estimated = cache = EstimatorCache(config, *sizes, dtype, self._device)
        known = self._tensor(prompt.mel)
        x = self._tensor(self._noise.frames(0, len(prompt.mel)))
        for step in range(options.steps):
            before, k, v = cache.past(step)
            x, rows = self._step(step, x, mean, known, (before, k[..., :0, :], v[..., :0, :]))
            cache.store_prompt(step, *rows)

    def _encode(
        self, ids: NDArray[np.int64], tokens: int, cache: EncoderCache
    ) -> tuple[Tensor, list[Tensor]]:
        """The mean of so many tokens, and what the encoder's cache needs of them."""
        missing = tokens + self.look_ahead - len(ids)
        known = np.arange(tokens + self.look_ahead) < len(ids)
        filled = torch.from_numpy(np.pad(ids, (0, missing))).to(self._device)
        up = self.flow.config.conformer.up
        past = cache.tokens
        if past + tokens > self._radius:
            self._radius = past + tokens + LARGEST_CHUNK
            self._distances = self.flow.encoder.encoder.distances(self._radius)
        mean, *own = self.flow.encoder(
            filled,
            torch.from_numpy(known).to(self._device),
            cache.before,
            cache.up_before,
            window(self._distances[0], past, tokens),
            window(self._distances[1], up * past, up * tokens),
            cache.k,
            cache.v,
            cache.up_k,
            cache.up_v,
        )
        return mean, own

    def _step(
        self, step: int, x: Tensor, mean: Tensor, known: Tensor, past: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        layers, final = (part[step] for part in self._modulation)
        given = (x, mean, self._voice, known, layers, final, *past)
        velocities, before, k, v = self.flow.estimator(*given)
        length = float(self._times[step + 1] - self._times[step])
        return x + length * guided(velocities, self.guidance), (before, k, v)

    def _tensor(self, x: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(x).to(self._device)

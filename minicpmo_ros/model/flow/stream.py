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
from numpy.typing import NDArray

from minicpmo_ros.errors import ConfigError, InputError, NumericsError
from minicpmo_ros.model.flow.cache import EncoderCache
from minicpmo_ros.model.flow.config import SILENCE
from minicpmo_ros.model.flow.noise import Noise
from minicpmo_ros.model.flow.prompt import VoicePrompt, checked_prompt, checked_tokens
from minicpmo_ros.model.flow.rows import Forget, FrameSlots
from minicpmo_ros.model.flow.solver import guided, schedule
from minicpmo_ros.model.flow.stages import Condition, Encoded, FlowStages

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
        flow: the network, on any runtime: a `network.Flow`, or stages that were built of one.
        prompt: the voice. It is read once, here; a turn begins behind it.
        silence: the token that fills up the look-ahead behind the prompt.

    Raises:
        InputError: the prompt is of no use.
    """

    def __init__(
        self,
        flow: FlowStages,
        prompt: VoicePrompt,
        options: FlowOptions | None = None,
        silence: int = SILENCE,
    ) -> None:
        self.flow, self.options = flow, options or FlowOptions()
        config = flow.config
        self.look_ahead = config.conformer.look_ahead
        guidance = self.options.guidance
        self.guidance = config.guidance if guidance is None else guidance
        self.prompt = checked_prompt(prompt, config)
        self._times = schedule(self.options.steps)
        self._noise = Noise(config.mels, self.options.seed)
        self._voice = flow.conditioning(self.prompt.voice)
        self._slots = FrameSlots(len(self.prompt.mel), self.options.forget)
        self._solver = flow.solver(self._times[:-1], self._slots.capacity)
        self._read_prompt(checked_tokens([silence] * self.look_ahead, config.tokens))
        self.reset()

    def reset(self) -> None:
        """Begin a turn behind the prompt; nothing of the last one is left."""
        self._encoded = self._prompt_encoded
        self._slots.reset()
        self._solver.reset()
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
        return self._solver.nbytes

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
        mean, *own = self._encode(ids, tokens, self._encoded)
        after = self._followed(self._encoded, own)
        place = self._place if self.options.noise == "place" else self._slots.length
        past = slice(self._slots.start, self._slots.stop)
        kept, slots = self._slots.push(len(mean))
        condition = Condition(mean, self._voice, np.zeros_like(mean))
        frames = self._solved(place, condition, past, kept, slots)
        self._encoded = after
        self._place += len(mean)
        return frames

    def _read_prompt(self, following: NDArray[np.int64]) -> None:
        prompt, slots = self.prompt, self._slots
        ids = np.concatenate((prompt.tokens, following))
        nothing = EncoderCache.empty(self.flow.config)
        mean, *own = self._encode(ids, len(prompt.tokens), nothing)
        self._prompt_encoded = self._followed(nothing, own)
        condition = Condition(mean, self._voice, prompt.mel)
        places = range(slots.room, slots.capacity)
        self._solved(0, condition, slice(0, 0), slots.prompt_order(), places)
        self._solver.begin()

    def _encode(self, ids: NDArray[np.int64], tokens: int, past: EncoderCache) -> Encoded:
        """So many tokens; where fewer follow than are looked at, nothing does."""
        wanted = tokens + self.look_ahead
        known = np.arange(wanted) < len(ids)
        return self.flow.encode(np.pad(ids, (0, wanted - len(ids))), known, past)

    def _followed(self, cache: EncoderCache, own: Sequence[MelFrames]) -> EncoderCache:
        up = self.flow.config.conformer.up
        return cache.followed_by(own, len(self.prompt.tokens), up, self.options.forget)

    def _solved(
        self,
        place: int,
        condition: Condition,
        past: slice,
        kept: Sequence[int],
        slots: Sequence[int],
    ) -> MelFrames:
        """Frames from the noise of a place; see `stages.Solver.velocities` for the rest."""
        x = self._noise.frames(place, len(condition.mean))
        for step, length in enumerate(np.diff(self._times)):
            velocities = self._solver.velocities(step, x, condition, past, kept, slots)
            x = x + length * guided(velocities, self.guidance)
        return x

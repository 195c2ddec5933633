"""A session's sound, second by second through the audio encoder, whatever runs it. No torch.

The encoder knows `max_positions` places of 20 ms (30 s) and learned them as absolute: they enter
with the input, so cached keys and values belong to their places and can neither be moved nor joined
by later places. When the cache is full there are two ways on:

- start afresh (`overlap_s=0`, what the reference does): every 29 s the encoder forgets all sound;
- slide: for the last `overlap_s` seconds before the cache is full, each second is also encoded into
  a second cache, as the start of a stream of its own. When the first is full the second takes over.
  So every second is encoded exactly as in a stream that began at least `overlap_s` seconds before
  (or at the session's start). It costs another pass for those seconds, and another cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.mel import Array, StreamingMel
from minicpmo_ros.model.part_configs import AudioConfig

POSITIONS_PER_SECOND = 50


class Length(Protocol):
    """A cache: how many of its positions hold something. Setting it to 0 empties it."""

    length: int


CacheT = TypeVar("CacheT", bound=Length)
RowsT = TypeVar("RowsT")


def capacity_s(config: AudioConfig) -> int:
    """Seconds that fit into the cache.

    Positions would do for one more, but the reference counts a second with its context, 52
    positions, and starts afresh where these do not end below max_positions.
    """
    with_context = POSITIONS_PER_SECOND + 2
    return (config.max_positions - with_context - 1) // POSITIONS_PER_SECOND + 1


class SoundStream(ABC, Generic[CacheT, RowsT]):
    """What one session has heard. Its state is here: a new session takes a new one, or `reset`.

    Args:
        overlap_s: seconds that the encoder remembers at least once its cache has been full; 0
            forgets all every 29 s. At most half of what fits.

    Raises:
        ConfigError: overlap_s is out of its range, or the encoder knows too few positions.
    """

    def __init__(self, config: AudioConfig, overlap_s: int = 0) -> None:
        self.config = config
        fits = capacity_s(config)
        if fits < 1:
            raise ConfigError(
                f"the audio encoder knows {config.max_positions} positions; a second of"
                f" sound needs {POSITIONS_PER_SECOND + 3}"
            )
        if not 0 <= overlap_s <= fits // 2:
            raise ConfigError(
                f"overlap_s is {overlap_s}; the encoder's cache of {fits} s allows 0 to {fits // 2}"
            )
        self.overlap_s = overlap_s
        self.mel = StreamingMel(config.mels)
        self.cache = self._empty()
        self._next = self._empty() if overlap_s else None
        self._full = fits * POSITIONS_PER_SECOND
        self._overlap_from = (fits - overlap_s) * POSITIONS_PER_SECOND

    @abstractmethod
    def _empty(self) -> CacheT:
        """A cache for all seconds that fit."""

    @abstractmethod
    def _encode(self, mel: Array, opening: bool, cache: CacheT) -> RowsT:
        """Embeddings of a window of the mel, [mels, 104], behind what a cache holds, which grows
        by it. opening: nothing was before this second."""

    def reset(self, *, cache: bool = True) -> None:
        """Forget everything heard.

        Args:
            cache: keys and values, too. The reference keeps them from one session to the next.
        """
        self.mel.reset()
        if not cache:
            return
        self.cache.length = 0
        if self._next is not None:
            self._next.length = 0

    def step(self, second: Array) -> RowsT:
        """Encode one second, float32 [16000] at 16 kHz: embeddings [10, llm_hidden].

        Raises:
            InputError: wrong length, or NaN; the stream is as before and takes the next second.
        """
        opening = self.mel.seconds == 0
        mel = self.mel.push(second)
        if self.cache.length == self._full:
            self._start_afresh()
        embeddings = self._encode(mel, opening, self.cache)
        if self._next is not None and self.cache.length > self._overlap_from:
            self._encode(mel, opening, self._next)
        return embeddings

    def _start_afresh(self) -> None:
        self.cache.length = 0
        if self._next is not None:
            self.cache, self._next = self._next, self.cache

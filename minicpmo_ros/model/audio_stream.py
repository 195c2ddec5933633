"""Sound into embeddings: a session's stream second by second, and whole sounds at once.

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

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.model.audio import POSITIONS_PER_SECOND, Audio
from minicpmo_ros.model.config import AudioConfig
from minicpmo_ros.model.mel import (
    HOP,
    PIECE,
    VOICE_S,
    Array,
    StreamingMel,
    checked_sound,
    checked_voice,
    log_mel,
)


def capacity_s(config: AudioConfig) -> int:
    """Seconds that fit into the cache.

    Positions would do for one more, but the reference counts a second with its context, 52
    positions, and starts afresh where these do not end below max_positions.
    """
    with_context = POSITIONS_PER_SECOND + 2
    return (config.max_positions - with_context - 1) // POSITIONS_PER_SECOND + 1


@dataclass
class AudioCache:
    """Keys and values of the seconds heard: [layers, heads, capacity, head_dim] each, of which the
    first `length` positions hold something. Written in place."""

    k: Tensor
    v: Tensor
    length: int = 0

    @classmethod
    def empty(
        cls, config: AudioConfig, dtype: torch.dtype, device: torch.device | str
    ) -> AudioCache:
        shape = (
            config.layers,
            config.heads,
            capacity_s(config) * POSITIONS_PER_SECOND,
            config.hidden // config.heads,
        )
        k, v = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return cls(k, v)

    @property
    def full(self) -> bool:
        return self.length == self.k.shape[2]


class AudioStream:
    """What one session has heard. Its state is here: a new session takes a new one, or `reset`.

    Args:
        stage: the network; its dtype and device are the stream's.
        overlap_s: seconds that the encoder remembers at least once its cache has been full; 0
            forgets all every 29 s. At most half of what fits.

    Raises:
        ConfigError: overlap_s is out of its range, or the encoder knows too few positions.
    """

    def __init__(self, stage: Audio, *, overlap_s: int = 0) -> None:
        self.stage = stage
        self.config = stage.config
        fits = capacity_s(self.config)
        if fits < 1:
            raise ConfigError(
                f"the audio encoder knows {self.config.max_positions} positions; a second of"
                f" sound needs {POSITIONS_PER_SECOND + 3}"
            )
        if not 0 <= overlap_s <= fits // 2:
            raise ConfigError(
                f"overlap_s is {overlap_s}; the encoder's cache of {fits} s allows 0 to {fits // 2}"
            )
        self.overlap_s = overlap_s
        weight = stage.apm.conv1.weight
        self.device = weight.device
        self.mel = StreamingMel(self.config.mels)
        self.cache = AudioCache.empty(self.config, weight.dtype, weight.device)
        self._next = (
            AudioCache.empty(self.config, weight.dtype, weight.device) if overlap_s else None
        )

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

    @torch.inference_mode()
    def step(self, second: Array) -> Tensor:
        """Encode one second, float32 [16000] at 16 kHz: embeddings [10, llm_hidden].

        Raises:
            InputError: wrong length, or NaN; the stream is as before and takes the next second.
        """
        opening = torch.tensor(self.mel.seconds == 0, device=self.device)
        mel = torch.from_numpy(self.mel.push(second)).to(self.device)
        if self.cache.full:
            self._start_afresh()
        embeddings = self._encode(mel, opening, self.cache)
        overlap_from = capacity_s(self.config) - self.overlap_s
        if self._next is not None and self.cache.length > overlap_from * POSITIONS_PER_SECOND:
            self._encode(mel, opening, self._next)
        return embeddings

    def _start_afresh(self) -> None:
        self.cache.length = 0
        if self._next is not None:
            self.cache, self._next = self._next, self.cache

    def _encode(self, mel: Tensor, opening: Tensor, cache: AudioCache) -> Tensor:
        start, end = cache.length, cache.length + POSITIONS_PER_SECOND
        positions = torch.arange(start, end, device=self.device)
        past_k, past_v = cache.k[:, :, :start], cache.v[:, :, :start]
        embeddings, k, v = self.stage(mel, opening, positions, past_k, past_v)
        cache.k[:, :, start:end], cache.v[:, :, start:end] = k, v
        cache.length = end
        return embeddings


def block_mask(positions: int, block: int, device: torch.device | str = "cpu") -> Tensor:
    """Attention of whole sounds as if streamed: bool [positions, positions], true where a position
    (row) sees another (column), which is in its own block and in all before."""
    blocks = torch.arange(positions, device=device) // block
    return blocks[:, None] >= blocks[None]


@torch.inference_mode()
def embed_sound(
    stage: Audio,
    samples: Array,
    *,
    blocks: bool = True,
    floor: float | None = None,
    reference_compat: bool = False,
) -> Tensor:
    """Embeddings of a whole sound, a reference voice for one: [about 10 a second, llm_hidden].

    Sound beyond 30 s is cut into pieces of 30 s, each encoded by itself.

    Args:
        samples: float32 [samples] at 16 kHz.
        blocks: each second sees itself and what is before it, as in a stream; False: sees all.
        floor: that of the log-mel; None follows the loudest value of each piece.
        reference_compat: pad pieces to the longest and hide the padding as the reference does,
            which counts positions in frames: a short piece after a whole one sees some of it.

    Raises:
        InputError: too short for one embedding, or see `mel.checked_sound`.
    """
    samples = checked_sound(samples)
    config = stage.config
    weight = stage.apm.conv1.weight
    size = min(PIECE, config.max_positions * 2 * HOP)
    mels = [
        log_mel(samples[i : i + size], config.mels, floor=floor)
        for i in range(0, len(samples), size)
    ]
    embeddings = []
    for mel in mels:
        frames = mel.shape[1]
        count = (frames + 1) // 2 // config.pool
        if not count:
            continue
        if reference_compat:
            mel = np.pad(mel, ((0, 0), (0, mels[0].shape[1] - frames)))
        positions = (mel.shape[1] + 1) // 2
        block = int(config.chunk_s * POSITIONS_PER_SECOND) if blocks else positions
        mask = block_mask(positions, block, weight.device)
        if reference_compat:
            mask &= torch.arange(positions, device=weight.device) < frames
        whole = stage.whole(torch.from_numpy(mel)[None].to(weight.device), mask)
        embeddings.append(whole[0, :count])
    if not embeddings:
        needed = (2 * config.pool - 2) * HOP + 1
        raise InputError(f"sound has {len(samples)} samples; an embedding needs {needed}")
    return torch.cat(embeddings)


def embed_voice(
    stage: Audio,
    samples: Array,
    *,
    seconds: tuple[float, float] = VOICE_S,
    reference_compat: bool = False,
) -> Tensor:
    """Embeddings of a reference voice, for the system prompt; see `embed_sound`.

    Args:
        seconds: the shortest and the longest voice that is taken. Five to fifteen are best; each
            second takes ten places of the language model's context.
        reference_compat: take any length and loudness, as the reference does; see `embed_sound`.

    Raises:
        InputError: too short, too long, silent, or see `mel.checked_sound`.
    """
    if not reference_compat:
        samples = checked_voice(samples, seconds)
    return embed_sound(stage, samples, reference_compat=reference_compat)

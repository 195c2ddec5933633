"""Sound into embeddings in torch: a session's stream second by second, and whole sounds at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.mel import HOP, PIECE, VOICE_S, Array, checked_sound, checked_voice, log_mel
from minicpmo_ros.model.part_configs import AudioConfig
from minicpmo_ros.model.sound_stream import POSITIONS_PER_SECOND, SoundStream, capacity_s


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


class AudioStream(SoundStream[AudioCache, Tensor]):
    """What one session has heard; see `SoundStream`. The stage's dtype and device are its own."""

    def __init__(self, stage: Audio, *, overlap_s: int = 0) -> None:
        self.stage = stage
        weight = stage.apm.conv1.weight
        self.device, self.dtype = weight.device, weight.dtype
        super().__init__(stage.config, overlap_s)

    def _empty(self) -> AudioCache:
        return AudioCache.empty(self.config, self.dtype, self.device)

    @torch.inference_mode()
    def _encode(self, mel: Array, opening: bool, cache: AudioCache) -> Tensor:
        start, end = cache.length, cache.length + POSITIONS_PER_SECOND
        positions = torch.arange(start, end, device=self.device)
        past_k, past_v = cache.k[:, :, :start], cache.v[:, :, :start]
        window = torch.from_numpy(mel).to(self.device)
        begins = torch.tensor(opening, device=self.device)
        embeddings, k, v = self.stage(window, begins, positions, past_k, past_v)
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

"""Sound through an audio stage that is not torch: a session's stream, and whole sounds.

A whole sound goes through the same file as a stream, second by second: within a second all see
each other, and what was before, which is how whole sounds are encoded.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import InputError
from minicpmo_ros.model.mel import (
    CONTEXT,
    HOP,
    PIECE,
    SECOND_FRAMES,
    VOICE_S,
    checked_sound,
    checked_voice,
    log_mel,
)
from minicpmo_ros.model.part_configs import AudioConfig
from minicpmo_ros.model.sound_stream import POSITIONS_PER_SECOND, SoundStream, capacity_s
from minicpmo_ros.runtime.stages import CachedStage

Array = NDArray[np.float32]


class Hearing(SoundStream[Any, Array]):
    """One stream; see `SoundStream`."""

    def __init__(self, stage: CachedStage, config: AudioConfig, overlap_s: int = 0) -> None:
        self._stage = stage
        super().__init__(config, overlap_s)

    def reset(self, *, cache: bool = True) -> None:
        if cache:  # what was no number must not stay in rows that are not used
            self.cache.truncate(0)
            if self._next is not None:
                self._next.truncate(0)
        super().reset(cache=cache)

    def _empty(self) -> Any:
        return self._stage.cache(capacity_s(self.config) * POSITIONS_PER_SECOND)

    def _encode(self, mel: Array, opening: bool, cache: Any) -> Array:
        return _encode(self._stage, cache, mel, opening, SECOND_FRAMES)


def embed_sound(
    stage: CachedStage,
    config: AudioConfig,
    samples: Array,
    *,
    reference_compat: bool = False,
) -> Array:
    """As `model.audio_stream.embed_sound`: [about 10 a second, llm_hidden].

    reference_compat: what is shorter than a second behind whole pieces of 30 s is encoded without
    the padding that the reference shows it.
    """
    samples = checked_sound(samples)
    size = min(PIECE, config.max_positions * 2 * HOP)
    embeddings = []
    for number, start in enumerate(range(0, len(samples), size)):
        mel = log_mel(samples[start : start + size], config.mels)
        frames = mel.shape[1]
        count = (frames + 1) // 2 // config.pool
        if not count:
            continue
        shown = frames
        if reference_compat and number and frames > SECOND_FRAMES:
            shown = math.ceil(frames / SECOND_FRAMES) * SECOND_FRAMES
        embeddings.append(_whole(stage, config, mel, shown)[:count])
    if not embeddings:
        needed = (2 * config.pool - 2) * HOP + 1
        raise InputError(f"sound has {len(samples)} samples; an embedding needs {needed}")
    return np.concatenate(embeddings)


def embed_voice(
    stage: CachedStage,
    config: AudioConfig,
    samples: Array,
    *,
    seconds: tuple[float, float] = VOICE_S,
    reference_compat: bool = False,
) -> Array:
    """As `model.audio_stream.embed_voice`."""
    if not reference_compat:
        samples = checked_voice(samples, seconds)
    return embed_sound(stage, config, samples, reference_compat=reference_compat)


def _whole(stage: CachedStage, config: AudioConfig, mel: Array, frames: int) -> Array:
    """Embeddings of all seconds of a mel, of whose frames so many count."""
    seconds = math.ceil(frames / SECOND_FRAMES)
    cache = stage.cache(config.max_positions)
    behind = seconds * SECOND_FRAMES + CONTEXT - mel.shape[1]
    padded = np.pad(mel, ((0, 0), (CONTEXT, behind)))
    embeddings = []
    for second in range(seconds):
        start = second * SECOND_FRAMES
        window = padded[:, start : start + SECOND_FRAMES + 2 * CONTEXT]
        left = min(SECOND_FRAMES, frames - start)
        embeddings.append(_encode(stage, cache, window, second == 0, left))
    return np.concatenate(embeddings)


def _encode(stage: CachedStage, cache: Any, mel: Array, opening: bool, frames: int) -> Array:
    feed = {
        "mel": np.ascontiguousarray(mel, np.float32),
        "opening": np.array([opening]),
        "frames": np.array([frames], np.int64),
    }
    # The last second of 30 has places for all its positions, and a cache of fewer has not.
    return stage.step(feed, cache, cache.length, POSITIONS_PER_SECOND)

"""What a vocoder's stages are given when they are checked: noise of the right shapes. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.model.hift.history import UNKNOWN
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines.pieces import Piece
from minicpmo_ros.runtime.vocoder_stages import ROWS

Feed = dict[str, NDArray[Any]]
# Tokens of a chunk, and rows of the past that are filled.
TOKENS, FILLED = 25, 50


def vocoder_feeds(piece: Piece, config: VocoderConfig, random: np.random.Generator) -> list[Feed]:
    """A chunk at a turn's start, and one behind a past."""
    if piece.name == "flow.encoder":
        return [_tokens(config, random, filled) for filled in (0, FILLED)]
    if piece.name == "flow.estimator":
        return [_frames(config, random, filled) for filled in (0, FILLED)]
    return [_mel(config, random, opening) for opening in (True, False)]


def _tokens(config: VocoderConfig, random: np.random.Generator, filled: int) -> Feed:
    sizes = config.flow.conformer
    ids = TOKENS + sizes.look_ahead
    head_dim = sizes.hidden // sizes.heads

    def noise(*shape: int) -> NDArray[np.float32]:
        return random.standard_normal(shape, dtype=np.float32)

    rows = (sizes.layers, sizes.heads, ROWS, head_dim)
    up_rows = (sizes.up_layers, sizes.heads, sizes.up * ROWS, head_dim)
    return {
        "ids": random.integers(0, config.flow.tokens, ids),
        "known": np.ones(ids, np.bool_),
        "filled": np.array([filled], np.int64),
        "before": noise(sizes.hidden, 2),
        "up_before": noise(sizes.hidden, 2 * sizes.up),
        "k": noise(*rows),
        "v": noise(*rows),
        "up_k": noise(*up_rows),
        "up_v": noise(*up_rows),
    }


def _frames(config: VocoderConfig, random: np.random.Generator, filled: int) -> Feed:
    sizes, mels = config.flow.estimator, config.flow.mels
    frames = config.flow.conformer.up * TOKENS

    def noise(*shape: int) -> NDArray[np.float32]:
        return random.standard_normal(shape, dtype=np.float32)

    # Of a past of a hundred rows and more, some in front are not filled.
    slots = 2 * FILLED + ROWS
    rows = (sizes.layers, 2, sizes.heads, slots, sizes.head_dim)
    return {
        "x": noise(frames, mels),
        "mean": noise(frames, mels),
        "voice": noise(mels),
        "known": noise(frames, mels),
        "modulation": 0.3 * noise(sizes.layers, 9, sizes.hidden),
        "last_modulation": 0.3 * noise(2, sizes.hidden),
        "filled": np.array([slots - filled, slots], np.int64),
        "before": noise(sizes.layers, 2, 2 * sizes.hidden, sizes.kernel - 1),
        "k": noise(*rows),
        "v": noise(*rows),
    }


def _mel(config: VocoderConfig, random: np.random.Generator, opening: bool) -> Feed:
    hift = config.hift
    frames = config.flow.conformer.up * TOKENS

    def noise(*shape: int) -> NDArray[np.float32]:
        return random.standard_normal(shape, dtype=np.float32)

    return {
        "mel": noise(hift.mels, frames),
        "known_f0": np.full(frames, UNKNOWN, np.float32),
        "known_source": np.full((frames, hift.samples_per_frame), UNKNOWN, np.float32),
        "before": random.random(hift.harmonics, dtype=np.float32),
        "opening": np.array([opening]),
        "noise": noise(frames, hift.samples_per_frame, hift.harmonics),
    }

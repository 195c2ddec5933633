"""The files of a network of any size with random weights, without a checkpoint on the disk."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.layout import shapes
from minicpmo_ros.runtime.engines.build import Read, write_piece
from minicpmo_ros.runtime.engines.pieces import GRAPH_FILE, Piece

# So many different numbers are drawn and repeated: 9 billion would take minutes. Each weight begins
# with another of them, for onnxruntime keeps weights that are alike only once.
BLOCK = 2**20
DEVIATION = 0.02


def random_read(config: ModelConfig) -> Read:
    """Weights by name: gains are one, all others small."""
    known = shapes(config)
    block = (np.random.default_rng(0).standard_normal(BLOCK) * DEVIATION).astype(np.float32)

    def read(name: str) -> np.ndarray:
        if name == "tts.head_code.0.weight":
            speech = config.speech_sizes()
            shape: tuple[int, ...] = (speech.codes, speech.hidden)
        else:
            shape = known[name]
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        start = zlib.crc32(name.encode()) % BLOCK
        return np.resize(np.roll(block, start), shape)

    return read


def write_random(
    config: ModelConfig,
    pieces: Iterable[Piece],
    folder: Path,
    advance: Callable[[str], None] = lambda name: None,
) -> dict[Piece, Path]:
    """Write pieces below a folder; the files, as `load.assemble` takes them."""
    read = random_read(config)
    files = {}
    for piece in pieces:
        own = folder / piece.name
        own.mkdir()
        write_piece(read, config, piece, own)
        files[piece] = own if piece.is_table else own / GRAPH_FILE
        advance(piece.name)
    return files

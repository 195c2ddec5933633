"""What the stages of a network are given when they are checked: a recording's pictures, sound and
conversation, or noise of the right shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.mel import WINDOW_FRAMES
from minicpmo_ros.model.picture import Slice, batch, slices
from minicpmo_ros.model.sound_stream import POSITIONS_PER_SECOND, capacity_s
from minicpmo_ros.runtime.engines.pieces import Piece
from minicpmo_ros.runtime.export.layerwise import CalibrationSequence
from minicpmo_ros.runtime.kv import frequencies

Array = NDArray[Any]
Feed = dict[str, Array]

# Tokens of noise that are read at once, and how often one is read behind whatever was read.
PREFILL = 24
DECODES = 3
# Rows by which keys are moved.
SLID = 500
# Of a recording, at most: slices of its pictures, tokens, those at once, and between those of which
# logits are asked for.
SLICES, TOKENS, BLOCK, APART = 12, 512, 64, 64


@dataclass(frozen=True, eq=False)
class Recorded:
    """What the network is given in a recording.

    slices: of its pictures, as the vision encoder takes them. mels: windows float32 [mels, 104] of
    its seconds in a row, the first of which opens the stream. sequence: what the language model
    reads.
    """

    slices: tuple[Slice, ...]
    mels: tuple[NDArray[np.float32], ...]
    sequence: CalibrationSequence


@dataclass(frozen=True)
class Step:
    """What a stage is given, and how many rows it leaves in its caches."""

    feed: Feed
    rows: int = 0


Run = list[Step]
"""Steps one behind the other, from empty caches on."""


@dataclass(frozen=True)
class Feeds:
    """Makes the steps of each piece.

    recorded: recordings to take; none: noise. What speech and `llm.turn` are given is always noise.
    prefill: tokens that a built file takes at once. capacity: rows of its caches.
    """

    config: ModelConfig
    recorded: Sequence[Recorded] = ()
    prefill: int = PREFILL
    capacity: int = TOKENS

    def runs(
        self, piece: Piece, hidden: dict[str, list[Array]], random: np.random.Generator
    ) -> list[Run]:
        """What a piece is given. hidden: of each part what torch made in the files before it,
        [T, hidden] run by run."""
        if piece.name == "vision":
            return self._looks(random)
        if piece.name == "audio":
            return self._hearings(random)
        if piece.name.endswith(".head"):
            apart = [states[::-1][::APART] for states in hidden[piece.part]]
            return [[Step({"hidden": row[None]}) for states in apart for row in states]]
        if piece.name.endswith(".turn"):
            return [[Step(_slide(self.config, random))]]
        if piece.layers[0]:
            return [self._tokens(states) for states in hidden[piece.part]]
        if piece.part == "llm" and self.recorded:
            most = min(TOKENS, self.capacity)
            return [self._tokens(one.sequence.embeds[:most]) for one in self.recorded]
        width = self.config.llm.hidden if piece.part == "llm" else self.config.speech_sizes().hidden
        noise = random.standard_normal((PREFILL + DECODES, width)) * 0.02
        return [self._tokens(noise.astype(np.float32))]

    def _tokens(self, rows: Array) -> Run:
        """Many at once, and the last one by one."""
        at_once = min(BLOCK, self.prefill)
        first = max(len(rows) - DECODES, 0)
        starts = [*range(0, first, at_once), *range(first, len(rows))]
        stops = [*starts[1:], len(rows)]
        return [
            Step({"embeds": rows[start:stop]}, stop - start)
            for start, stop in zip(starts, stops, strict=True)
        ]

    def _looks(self, random: np.random.Generator) -> list[Run]:
        shown = [one for recorded in self.recorded for one in _spread(recorded.slices, SLICES)]
        if not shown:
            shown = _noise_pictures(self.config, random)
        return [[Step(_look(self.config, one)) for one in shown]]

    def _hearings(self, random: np.random.Generator) -> list[Run]:
        config = self.config.audio
        heard: list[Sequence[Array]] = [one.mels for one in self.recorded if one.mels]
        if not heard:
            noise = random.standard_normal((3, config.mels, WINDOW_FRAMES)) * 0.3
            heard = [list(noise.astype(np.float32))]
        frames = np.array([2 * POSITIONS_PER_SECOND], np.int64)
        return [
            [
                Step(
                    {"mel": mel, "opening": np.array([number == 0]), "frames": frames},
                    POSITIONS_PER_SECOND,
                )
                for number, mel in enumerate(mels[: capacity_s(config)])
            ]
            for mels in heard
        ]


def _spread(items: Sequence[Slice], most: int) -> Sequence[Slice]:
    """So many of them, from all over."""
    return items[:: -(-len(items) // most)] if items else items


def _look(config: ModelConfig, one: Slice) -> Feed:
    found = batch([one], config.vision.side)
    return {"pixels": found.pixels, "position_ids": found.position_ids, "cells": found.cells}


def _noise_pictures(config: ModelConfig, random: np.random.Generator) -> list[Slice]:
    """A photograph's shape and a strip, in noise that is smooth, as pictures are."""
    found = []
    for size in ((480, 640), (90, 400)):
        rough = random.integers(0, 256, (size[0] // 10, size[1] // 10, 3))
        picture = np.kron(rough, np.ones((10, 10, 1))).astype(np.uint8)
        found += slices(picture, 1, config.slices)
    return found


def _slide(config: ModelConfig, random: np.random.Generator) -> Feed:
    """Keys of a few rows, and how far they turn."""
    llm = config.llm
    keys = random.standard_normal((llm.kv_heads * PREFILL, llm.head_dim)).astype(np.float32)
    angles = -SLID * frequencies(llm.head_dim, llm.rope_theta)
    return {"keys": keys, "cos": np.cos(angles), "sin": np.sin(angles)}

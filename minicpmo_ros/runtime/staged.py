"""A network of stages that may each run elsewhere; what crosses between them are numpy arrays.

No torch. Embeddings and hidden states are float32 [rows, width].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import BrainError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.picture import Slice, batch
from minicpmo_ros.runtime.api import NO_SPEECH, Context, Ears, Logits, Network, Part, Rows, Sound
from minicpmo_ros.runtime.hearing import Hearing, embed_sound, embed_voice
from minicpmo_ros.runtime.stages import CachedStage, Stage
from minicpmo_ros.runtime.tables import Table

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Reader:
    """A decoder with all that reading and writing needs.

    table: embeddings of what is read by number. head: hidden [T, hidden] to logits. block: tokens
    that are read in one step, at most.
    """

    layers: CachedStage
    head: Stage
    table: Table
    block: int = 512


@dataclass(frozen=True)
class Voicing:
    """What makes of text and thoughts the condition of the speech decoder.

    text: table of text tokens. weights: of the two linear layers, w1 [inner, llm_hidden], b1, w2
    [hidden, inner], b2, all float32.
    """

    text: Table
    weights: dict[str, Array]

    def condition(
        self, ids: Sequence[int], hidden: Array, signs: Sequence[int], normalize: bool
    ) -> Array:
        """As `model.speech.SpeechDecoder.condition`; signs: tokens that follow the text."""
        w = self.weights
        thought = np.maximum(hidden @ w["w1"].T + w["b1"], 0.0) @ w["w2"].T + w["b2"]
        if normalize:
            length = np.linalg.norm(thought, axis=-1, keepdims=True)
            thought = thought / np.maximum(length, 1e-12)
        merged = np.concatenate((self.text[ids] + thought, self.text[signs]))
        return merged.astype(np.float32)


class StagedContext:
    """See `runtime.api.Context`."""

    def __init__(self, reader: Reader, capacity: int) -> None:
        self._reader = reader
        self._cache = reader.layers.cache(capacity)

    @property
    def length(self) -> int:
        length: int = self._cache.length
        return length

    @property
    def capacity(self) -> int:
        capacity: int = self._cache.capacity
        return capacity

    @property
    def nbytes(self) -> int:
        nbytes: int = self._cache.nbytes
        return nbytes

    def read(self, *parts: Part, at: int | None = None) -> Array:
        embeds = np.concatenate([self._embedded(part) for part in parts])
        at = self.length if at is None else at
        if not 0 <= at <= self.length:
            raise ValueError(f"row {at} is not behind the {self.length} rows in use")
        self._cache.check_room(len(embeds), at)
        hidden = []
        for start in range(0, len(embeds), self._reader.block):
            some = embeds[start : start + self._reader.block]
            hidden.append(self._reader.layers.step({"embeds": some}, self._cache, at, len(some)))
            at += len(some)
        return np.concatenate(hidden) if len(hidden) > 1 else hidden[0]

    def logits(self, hidden: Rows) -> Logits:
        last: Any = hidden
        found: Logits = self._reader.head.run({"hidden": last[-1:]})[0][0]
        return found

    def check_room(self, rows: int) -> None:
        self._cache.check_room(rows)

    def truncate(self, length: int) -> None:
        self._cache.truncate(length)

    def remove(self, spans: Iterable[tuple[int, int]]) -> None:
        self._cache.remove(spans)

    def shift(self, start: int, to: int) -> None:
        self._cache.shift(start, to)

    def keys(self, last: int) -> Array:
        keys: Array = self._cache.keys(last)
        return keys

    def _embedded(self, part: Part) -> Array:
        return part if isinstance(part, np.ndarray) else self._reader.table[part]  # type: ignore[index]


class StagedNetwork(Network):
    """See `runtime.api.Network`.

    Args:
        vision: pixels, position_ids, cells of one slice -> embeddings.
        audio: mel, opening, frames behind its cache -> embeddings of a second.
        speech, voicing: None where the checkpoint has no speech decoder.
    """

    def __init__(
        self,
        config: ModelConfig,
        vision: Stage,
        audio: CachedStage,
        llm: Reader,
        speech: Reader | None = None,
        voicing: Voicing | None = None,
        about: str = "",
    ) -> None:
        self.config = config
        self.about = about
        self._vision, self._audio, self._llm, self._speech = vision, audio, llm, speech
        self._voicing = voicing

    def look(self, slices: Sequence[Slice]) -> list[Array]:
        return [self._look(one) for one in slices]

    def _look(self, one: Slice) -> Array:
        found = batch([one], self.config.vision.side)
        feed = {"pixels": found.pixels, "position_ids": found.position_ids, "cells": found.cells}
        return self._vision.run(feed)[0]

    def ears(self, overlap_s: int = 0) -> Ears:
        return Hearing(self._audio, self.config.audio, overlap_s)

    def voice(self, samples: Sound, *, reference_compat: bool = False) -> Array:
        return embed_voice(
            self._audio, self.config.audio, samples, reference_compat=reference_compat
        )

    def sound(self, samples: Sound) -> Array:
        return embed_sound(self._audio, self.config.audio, samples)

    def seconds(self, samples: Sound) -> list[Array]:
        whole = self.sound(samples)
        rows = 50 // self.config.audio.pool
        return [whole[i : i + rows] for i in range(0, len(whole), rows)]

    def context(self, capacity: int) -> Context:
        return StagedContext(self._llm, capacity)

    def speech(self, capacity: int | None = None) -> Context:
        if self._speech is None:
            raise BrainError(NO_SPEECH)
        return StagedContext(self._speech, capacity or self.config.speech_sizes().max_positions)

    def condition(
        self, ids: Sequence[int], hidden: Sequence[Any], *, text_ended: bool, normalize: bool
    ) -> Array:
        if self._voicing is None:
            raise BrainError(NO_SPEECH)
        speech = self.config.speech_sizes()
        empty = np.empty((0, self.config.llm.hidden), np.float32)
        states = np.concatenate(list(hidden)) if hidden else empty
        signs = [speech.text_eos] * text_ended + [speech.audio_bos]
        return self._voicing.condition(ids, states, signs, normalize)

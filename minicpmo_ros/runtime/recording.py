"""A network that only notes what its language model would read: for calibration.

Pictures and sound go through their encoders; tokens become embeddings, row by row from the files.
The language model itself is not loaded, so that a small machine can note a conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minicpmo_ros.errors import EngineError, KvFullError
from minicpmo_ros.model.audio import Audio
from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.packed import pack
from minicpmo_ros.model.vision import VisionStage
from minicpmo_ros.runtime.api import Context, Logits, Part, Rows
from minicpmo_ros.runtime.torch_runtime import TorchNetwork

Array = NDArray[np.float32]
TABLE = "llm.model.embed_tokens.weight"


class RecordedContext:
    """See `runtime.api.Context`. Hidden states and logits are zeros.

    embeds: float32 [capacity, hidden]; the first `length` rows were read. asked: rows behind which
    logits were asked for.
    """

    def __init__(self, checkpoint: Checkpoint, capacity: int) -> None:
        config = checkpoint.config.llm
        self.embeds = np.zeros((capacity, config.hidden), np.float32)
        self.length = 0
        self.asked: list[int] = []
        self._vocab = config.vocab
        self._checkpoint = checkpoint
        self._table: dict[int, Array] = {}

    @property
    def capacity(self) -> int:
        return len(self.embeds)

    @property
    def nbytes(self) -> int:
        return self.embeds.nbytes

    def read(self, *parts: Part, at: int | None = None) -> Array:
        rows = np.concatenate([self._embedded(part) for part in parts])
        at = self.length if at is None else at
        self._check_room(at, len(rows))
        self.embeds[at : at + len(rows)] = rows
        self.length = max(self.length, at + len(rows))
        return np.zeros((len(rows), 1), np.float32)

    def logits(self, hidden: Rows) -> Logits:
        self.asked.append(self.length - 1)
        return np.zeros(self._vocab, np.float32)

    def check_room(self, rows: int) -> None:
        self._check_room(self.length, rows)

    def _check_room(self, at: int, rows: int) -> None:
        if at + rows > self.capacity:
            raise KvFullError(
                f"the recording has room for {self.capacity} tokens; {at} are in use, and {rows}"
                " more do not fit"
            )

    def truncate(self, length: int) -> None:
        self.length = length

    def remove(self, spans: Iterable[tuple[int, int]]) -> None:
        kept = np.ones(self.length, bool)
        for start, stop in spans:
            kept[start:stop] = False
        self.length = int(kept.sum())
        self.embeds[: self.length] = self.embeds[: len(kept)][kept]

    def shift(self, start: int, to: int) -> None:
        moved = self.embeds[start : self.length].copy()
        self._check_room(to, len(moved))
        self.embeds[to : to + len(moved)] = moved
        self.length = to + len(moved)

    def keys(self, last: int) -> Array:
        return np.zeros((1, 1, last, 1), np.float32)

    def _embedded(self, part: Part) -> Array:
        if isinstance(part, Tensor):
            return part.to("cpu", torch.float32).numpy()
        return np.stack([self._row(int(token)) for token in part])  # type: ignore[attr-defined]

    def _row(self, token: int) -> Array:
        if token not in self._table:
            row = self._checkpoint.read(TABLE, rows=slice(token, token + 1))
            self._table[token] = row[0].numpy()
        return self._table[token]


class RecordingNetwork(TorchNetwork):
    """The encoders of a checkpoint in float32 on the CPU, and contexts that record.

    Raises:
        CheckpointError: see `model.checkpoint.Checkpoint`.
    """

    def __init__(self, directory: Path | str) -> None:
        self.checkpoint = Checkpoint(directory)
        c = self.config = self.checkpoint.config
        self._vision = self.checkpoint.build(lambda: VisionStage(c.vision, c.resampler))
        self._audio = self.checkpoint.build(lambda: Audio(c.audio))
        for stage in (self._vision, self._audio):
            pack(stage)
        self.about = "encoders in torch on cpu; the language model is not run"

    def context(self, capacity: int) -> RecordedContext:
        return RecordedContext(self.checkpoint, capacity)

    def speech(self, capacity: int | None = None) -> Context:
        raise EngineError("what the speech decoder reads is not recorded; converse without speech")

    def condition(
        self, ids: Sequence[int], hidden: Sequence[Any], *, text_ended: bool, normalize: bool
    ) -> Tensor:
        raise EngineError("what the speech decoder reads is not recorded; converse without speech")

"""A network whose language model draws what a test tells it, and that keeps what it has read."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.runtime.api import Context, Logits, Rows

Told = int | Mapping[int, float]
"""The token to draw, or by how much the logits of some are raised."""


class DirectedNetwork:
    """A network that draws what is in `script`, one entry each time that logits are asked for, then
    `rest` for ever; where that is None, as it likes.

    seen, heard: embeddings of each slice and of each sound, in their order.
    """

    def __init__(self, network: Any, tokenizer: Tokenizer) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.script: deque[Told] = deque()
        self.rest: int | None = tokenizer.control.listen
        self.seen: list[Rows] = []
        self.heard: list[Rows] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    @property
    def looked(self) -> int:
        """Slices that were encoded."""
        return len(self.seen)

    def context(self, capacity: int) -> DirectedContext:
        return DirectedContext(self.network.context(capacity), self)

    def look(self, slices: Sequence[Any]) -> Any:
        self.seen += (found := self.network.look(slices))
        return found

    def sound(self, samples: np.ndarray) -> Any:
        self.heard.append(found := self.network.sound(samples))
        return found

    def seconds(self, samples: np.ndarray) -> Any:
        self.heard += (found := self.network.seconds(samples))
        return found

    def ears(self, overlap_s: int = 0) -> Any:
        return _DirectedEars(self.network.ears(overlap_s), self.heard)

    def next(self) -> Mapping[int, float]:
        told = self.script.popleft() if self.script else self.rest
        if told is None:
            return {}
        return {told: 1000.0} if isinstance(told, int) else told

    def says(self, text: str, *, end: bool = False) -> None:
        """One unit of a turn in duplex."""
        control = self.tokenizer.control
        last = [control.turn_eos] if end else []
        self.script += [control.speak, *self.tokenizer.encode(text), *last, control.chunk_eos]

    def replies(self, text: str) -> None:
        """A whole reply in the turn-based modes."""
        self.script += [*self.tokenizer.encode(text), self.tokenizer.control.tts_eos]


class DirectedContext:
    """A context that draws what its network is told. parts: all that was read, in order."""

    def __init__(self, context: Context, network: DirectedNetwork) -> None:
        self._context = context
        self._network = network
        self.parts: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def read(self, *parts: Any, at: int | None = None) -> Rows:
        hidden = self._context.read(*parts, at=at)
        self.parts += parts
        return hidden

    def logits(self, hidden: Rows) -> Logits:
        logits = self._context.logits(hidden)
        for token, more in self._network.next().items():
            logits[token] += more
        return logits

    @property
    def ids(self) -> list[int]:
        """Tokens that were read, embeddings left out."""
        return [token for part in self.parts if isinstance(part, list) for token in part]

    @property
    def transcript(self) -> list[Any]:
        """What was read: tokens, and where embeddings stand, "picture", "sound" or "voice"."""
        found: list[Any] = []
        for part in self.parts:
            if isinstance(part, list):
                found += part
            elif any(part is one for one in self._network.seen):
                found.append("picture")
            elif any(part is one for one in self._network.heard):
                found.append("sound")
            else:
                found.append("voice")
        return found


class _DirectedEars:
    def __init__(self, ears: Any, heard: list[Rows]) -> None:
        self._ears = ears
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ears, name)

    def step(self, second: np.ndarray) -> Rows:
        self._heard.append(found := self._ears.step(second))
        return found


def spelled(encode: Callable[[str], list[int]], text: str) -> list[Any]:
    """The transcript of a text in which control tokens are written out, and {picture}, {sound} and
    {voice} stand for embeddings."""
    found: list[Any] = []
    for place, piece in enumerate(re.split(r"\{(\w+)\}", text)):
        found += [piece] if place % 2 else (encode(piece) if piece else [])
    return found

"""The stages of a network as a conversation uses them, whatever runs them.

Embeddings and hidden states belong to the runtime (a torch tensor, a numpy array, a buffer on a
GPU): who gets them hands them on and looks at nothing but `len`. Numbers that are decided upon,
logits, are numpy arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from minicpmo_ros.model.config import ModelConfig
    from minicpmo_ros.model.picture import Slice

Logits = NDArray[np.float32]
Sound = NDArray[np.float32]


class Rows(Protocol):
    """Embeddings or hidden states, one a row; opaque."""

    def __len__(self) -> int: ...


NO_SPEECH = (
    "the checkpoint has no speech decoder (config.json: init_tts is false), so it makes no codes of"
    " speech: converse with speaks=False, and have its text spoken by a synthesiser"
)
"""What BrainError says where one is asked for."""

Part = Sequence[int] | Rows
"""What is read: token ids (codes, for the speech decoder), or embeddings."""


class Memory(Protocol):
    """What was read, a row a token: what contexts and caches have in common.

    Whatever would go past `capacity` raises KvFullError before anything is written.
    """

    @property
    def length(self) -> int:
        """Rows in use."""

    @property
    def capacity(self) -> int:
        """Rows that fit."""

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values of the whole capacity, in bytes."""

    def check_room(self, rows: int) -> None:
        """Raise KvFullError unless so many rows can still be written."""

    def truncate(self, length: int) -> None:
        """Forget the rows from `length` on."""

    def remove(self, spans: Iterable[tuple[int, int]]) -> None:
        """Forget rows [start, stop) of each span; those behind move up, their keys rotated."""

    def shift(self, start: int, to: int) -> None:
        """Move the rows from `start` on so that they begin at `to`, their keys rotated."""

    def keys(self, last: int) -> NDArray[np.float32]:
        """Keys of the last rows, rotated: [layers, kv_heads, last, head_dim]. For checks."""


class Context(Memory, Protocol):
    """A decoder with what it has read: the language model's conversation, or a turn of speech."""

    def read(self, *parts: Part, at: int | None = None) -> Rows:
        """Read parts one after the other, behind what was read: their hidden states.

        at: write over the rows from there on instead, looking at nothing behind them.
        """

    def logits(self, hidden: Rows) -> Logits:
        """What may come after the last of these hidden states: float32 [vocab], the caller's."""


class Ears(Protocol):
    """One stream of sound through the audio encoder."""

    def step(self, second: Sound) -> Rows:
        """One second, float32 [16000] at 16 kHz: ten embeddings. Raises InputError."""

    def reset(self, *, cache: bool = True) -> None:
        """Forget everything heard; without `cache`, the encoder goes on to see what was heard."""


class Network(ABC):
    """All stages of one checkpoint, loaded. Conversations share it, one at a time."""

    config: ModelConfig
    about: str = ""
    """What runs on what, in one line."""

    @abstractmethod
    def look(self, slices: Sequence[Slice]) -> Sequence[Rows]:
        """Embeddings of each slice of pictures, `resampler.queries` rows each."""

    @abstractmethod
    def ears(self, overlap_s: int = 0) -> Ears:
        """A new stream; see `model.audio_stream` for overlap_s."""

    @abstractmethod
    def voice(self, samples: Sound, *, reference_compat: bool = False) -> Rows:
        """Embeddings of a reference voice at 16 kHz. Raises InputError for one of no use."""

    @abstractmethod
    def sound(self, samples: Sound) -> Rows:
        """Embeddings of a whole sound at 16 kHz, ten a second. Raises InputError."""

    @abstractmethod
    def seconds(self, samples: Sound) -> Sequence[Rows]:
        """The same for a sound of whole seconds, second by second: ten rows each."""

    @abstractmethod
    def context(self, capacity: int) -> Context:
        """An empty context of the language model."""

    @abstractmethod
    def speech(self, capacity: int | None = None) -> Context:
        """An empty context of the speech decoder; None: all positions that it has.

        Raises BrainError where the checkpoint has no speech decoder, as `condition` does.
        """

    @abstractmethod
    def condition(
        self, ids: Sequence[int], hidden: Sequence[Rows], *, text_ended: bool, normalize: bool
    ) -> Rows:
        """What the speech decoder is to say: see `model.speech.SpeechDecoder.condition`.

        hidden: the language model's states after it read each of the ids, one row each.
        """

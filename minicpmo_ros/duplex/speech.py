"""What is said in one turn: text with hidden states in, codes of sound out, 25 for a second.

A turn is a sequence of chunks, one a unit. Each begins with a condition, the text to be said as
the language model's tokens and hidden states, and goes on with codes. Keys and values last for the
turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.duplex.sampler import draw
from minicpmo_ros.errors import ConfigError, NumericsError
from minicpmo_ros.runtime.api import Context, Logits, Network, Part, Rows

CODES_PER_CHUNK = 25


@dataclass
class CodeSampler:
    """Draws the next code.

    The rules in their order: divide by `temperature`; penalise each of the last `window` codes of
    this chunk, `repetition` to the power of how often it occurs, dividing what is positive and
    multiplying what is negative; forbid `eos` unless the chunk may end; draw.

    Raises:
        ConfigError: a setting is out of its range.
    """

    eos: int
    temperature: float = 0.8
    repetition: float = 1.05
    window: int = 16
    rng: np.random.Generator | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "repetition"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"speech {name} is {getattr(self, name)}; it must be above 0")
        if self.window < 0:
            raise ConfigError(f"speech repetition window is {self.window}; it must not be negative")
        self._rng = self.rng or np.random.default_rng()

    def __call__(self, logits: Logits, history: Sequence[int], may_end: bool) -> int:
        """One code.

        Args:
            logits: float32 [codes]; not changed.
            history: the codes of this chunk so far.
            may_end: whether `eos` may be drawn.

        Raises:
            NumericsError: there is a NaN in the logits, or nothing in them is finite.
        """
        scores: NDArray[np.float64] = logits.astype(np.float64) / self.temperature
        recent, times = np.unique(
            history[-self.window :] if self.window else [], return_counts=True
        )
        if len(recent):
            recent = recent.astype(np.int64)
            penalty = self.repetition**times
            found = scores[recent]
            scores[recent] = np.where(found < 0, found * penalty, found / penalty)
        if not may_end:
            scores[self.eos] = -np.inf
        top = scores.max()
        if not np.isfinite(top):
            raise NumericsError("the speech decoder gave NaN or no finite logit; the turn is lost")
        return draw(np.exp(scores - top), self._rng)


class SpeechTurn:
    """Condition after condition in, codes out.

    Args:
        network: whose speech decoder is used.
        context: of that decoder; the turn's from now on.
        sampler: draws the codes.
    """

    def __init__(self, network: Network, context: Context, sampler: CodeSampler) -> None:
        self.network = network
        self.context = context
        self.sampler = sampler
        self.restart()

    def restart(self) -> None:
        """Forget everything: the next chunk begins a turn."""
        self.context.truncate(0)
        # A chunk's last code. Nothing is drawn from it, so it is read with the next condition: one
        # pass through the decoder less.
        self._unread: list[int] = []

    @property
    def length(self) -> int:
        """Conditions and codes of this turn so far, in tokens."""
        return self.context.length + len(self._unread)

    def chunk(
        self,
        ids: Sequence[int],
        hidden: Sequence[Rows],
        *,
        last: bool = False,
        normalize: bool = True,
        text_ended: bool = False,
    ) -> list[int]:
        """Say what the language model read as `ids`, thinking `hidden`, one row each.

        Args:
            last: the turn ends with this chunk.
            normalize, text_ended: see `runtime.api.Network.condition`.

        Returns:
            25 codes. Less, down to none, only in the first and the last chunk of a turn, where the
            decoder itself may end.

        Raises:
            KvFullError: the turn is too long for its cache; nothing was written.
            NumericsError: see CodeSampler.
        """
        drawn = self.stream(ids, hidden, last=last, normalize=normalize, text_ended=text_ended)
        return list(drawn)

    def stream(
        self,
        ids: Sequence[int],
        hidden: Sequence[Rows],
        *,
        last: bool = False,
        normalize: bool = True,
        text_ended: bool = False,
    ) -> Iterator[int]:
        """The same codes as `chunk`, each as it is drawn; if not all are, `restart` comes next."""
        may_end = last or self.length == 0
        condition = self.network.condition(ids, hidden, text_ended=text_ended, normalize=normalize)
        self.context.check_room(len(self._unread) + len(condition) + CODES_PER_CHUNK - 1)
        parts: list[Part] = [*([self._unread] if self._unread else []), condition]
        codes: list[int] = []
        while len(codes) < CODES_PER_CHUNK:
            logits = self.context.logits(self.context.read(*parts))
            code = self.sampler(logits, codes, may_end)
            if code == self.sampler.eos:
                self._unread = []
                return
            codes.append(code)
            self._unread = [code]
            yield code
            parts = [[code]]

"""The network with what the golden run added to its logits, and with the reference's luck.

The reference added a bias to the logits of control tokens, so that a random network listens and
speaks. And it drew codes of speech at a temperature of 1e-3 or so: the likeliest, unless two are
nearly as likely. Then its generator decided, which nobody else has; so a golden code that is nearly
as likely as the likeliest gets the lead that it takes to win.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from minicpmo_ros.model.llm import Llm
from minicpmo_ros.model.speech import SpeechDecoder
from minicpmo_ros.runtime.api import Logits, Rows
from minicpmo_ros.runtime.torch_runtime import TorchContext, TorchNetwork

GREEDY = 1e-6
"""A temperature that leaves nothing to chance."""

# A code so much less likely than the likeliest was not drawn by the reference. Part of the lead is
# lost where the code is penalised as a repetition: of 14 nats, four repetitions leave 11.
ODDS = 1e6


class BiasedContext(TorchContext):
    """The language model with a bias on some logits; it keeps those that units are decided on."""

    def __init__(self, decoder: Llm, capacity: int, bias: Mapping[int, float]) -> None:
        super().__init__(decoder, capacity)
        self.decisions: list[Logits] = []
        self._ids = np.array(list(bias), np.int64)
        self._added = np.array(list(bias.values()), np.float32)
        self._begins = False

    def begin_unit(self) -> None:
        """The logits that are asked for next are those that a unit is decided on."""
        self._begins = True

    def logits(self, hidden: Rows) -> Logits:
        found = super().logits(hidden)  # type: ignore[arg-type]
        found[self._ids] += self._added
        if self._begins:
            self.decisions.append(found.copy())  # a sampler changes what it is given
            self._begins = False
        return found


class LedContext(TorchContext):
    """The speech decoder, its near ties decided as the reference's were."""

    def __init__(self, decoder: SpeechDecoder, capacity: int | None, temperature: float) -> None:
        super().__init__(decoder, capacity)
        self._lead = np.float32(temperature * math.log(ODDS))
        self.expect(())

    def expect(self, codes: Sequence[int]) -> None:
        """The golden codes of the chunk that comes next, eos included if it ends early."""
        self._codes, self._place = codes, 0

    def logits(self, hidden: Rows) -> Logits:
        found = super().logits(hidden)  # type: ignore[arg-type]
        if self._place < len(self._codes):
            found[self._codes[self._place]] += self._lead
        self._place += 1
        return found


class ReferenceNetwork(TorchNetwork):
    """A network whose contexts are those above, over the modules of another.

    Args:
        temperature: at which the reference drew codes.
        bias: added to the language model's logits of these ids.
        longest_turn: rows of speech that a turn may take. The reference goes on beyond the
            positions that the decoder was taught, we begin anew.

    Attributes:
        words, codes: the contexts that were asked for last.
    """

    words: BiasedContext
    codes: LedContext

    def __init__(
        self,
        network: TorchNetwork,
        temperature: float,
        bias: Mapping[int, float] | None = None,
        longest_turn: int = 0,
    ) -> None:
        super().__init__(network.config, **network.stages)  # type: ignore[arg-type]
        self._bias = bias or {}
        self._temperature = temperature
        self._longest_turn = max(longest_turn, network.config.speech_sizes().max_positions)

    def context(self, capacity: int) -> BiasedContext:
        self.words = BiasedContext(self._llm, capacity, self._bias)
        return self.words

    def speech(self, capacity: int | None = None) -> LedContext:
        self.codes = LedContext(self._speaker(), capacity or self._longest_turn, self._temperature)
        return self.codes

"""What a stream asks of the network, whatever that is computed in. No torch.

Numpy arrays cross, float32 whatever a stage computes in. What the solver's steps remember is large
and stays where they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.model.flow.cache import EncoderCache
from minicpmo_ros.model.flow.config import FlowConfig

Array = NDArray[np.float32]


class Encoded(NamedTuple):
    """What the token encoder gives for T tokens; see `encoder.TokenEncoder.forward`."""

    mean: Array
    before: Array
    up_before: Array
    k: Array
    v: Array
    up_k: Array
    up_v: Array


class Condition(NamedTuple):
    """What frames are made of beside noise and time; see `estimator.Estimator.forward`."""

    mean: Array
    voice: Array
    known: Array


class Solver(Protocol):
    """The estimator at the times of some steps, with a past for each step, of which a turn's
    begins behind the prompt's."""

    @property
    def nbytes(self) -> int:
        """Of the memory that the pasts take."""

    def velocities(
        self,
        step: int,
        x: Array,
        condition: Condition,
        past: slice,
        kept: Sequence[int],
        slots: Sequence[int],
    ) -> Array:
        """Of T frames [T, mels] at a step's time: [2, T, mels], with the condition and without.

        Args:
            past: slots whose rows the frames see.
            kept: frames whose rows are kept. slots: where, one for each.
        """

    def begin(self) -> None:
        """Every turn begins behind what was read until now, the prompt."""

    def reset(self) -> None:
        """As at `begin`, but for rows in slots, which the caller knows of."""


class FlowStages(Protocol):
    """The network. `network.Flow` is one in torch."""

    config: FlowConfig

    def conditioning(self, voice: Array) -> Array:
        """A voice's vector [voice] to what conditions every frame, [mels]."""

    def encode(
        self, ids: NDArray[np.int64], known: NDArray[np.bool_], past: EncoderCache
    ) -> Encoded:
        """T tokens behind a past; see `encoder.TokenEncoder.forward`.

        Args:
            ids: [T + look_ahead]. known: likewise.
        """

    def solver(self, times: Array, slots: int) -> Solver:
        """For steps that begin at these times [N], and so many slots for rows.

        Raises:
            ConfigError: it was not built for so many steps.
        """

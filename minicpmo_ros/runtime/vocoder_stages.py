"""The vocoder's networks from files, on any runtime (`runtime.stages`). No torch.

The pasts of the solver's steps lie in main memory, as large as they ever get, and are handed over
whole: a graph is told which of their rows are filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.model.flow.cache import EncoderCache
from minicpmo_ros.model.flow.config import FlowConfig
from minicpmo_ros.model.flow.solver import TABLE_STEPS
from minicpmo_ros.model.flow.stages import Array, Condition, Encoded
from minicpmo_ros.model.hift.history import Rendered
from minicpmo_ros.runtime.stages import Stage

ROWS = 64
"""The token encoder's past has a multiple of so many rows, so that few sizes occur."""
FILE, CONFIG = "flow.npz", "vocoder.json"


@dataclass(frozen=True, eq=False)
class FlowTables:
    """What is no graph: float32.

    times: [N]. modulation, last_modulation: of each, as `Estimator.modulation` has them.
    voice_weight, voice_bias: of `encoder.VoiceProjection`.
    """

    times: Array
    modulation: Array
    last_modulation: Array
    voice_weight: Array
    voice_bias: Array

    def save(self, folder: Path) -> None:
        np.savez(folder / FILE, **vars(self))

    @classmethod
    def load(cls, folder: Path) -> FlowTables:
        with np.load(folder / FILE, allow_pickle=False) as stored:
            return cls(**stored)


class StagedFlow:
    """`model.flow.stages.FlowStages`.

    Args:
        encoder, estimator: of `runtime.export.vocoder_plans`.
        dtype: of the solver's pasts; that of the estimator saves it a conversion.
    """

    def __init__(
        self,
        config: FlowConfig,
        encoder: Stage,
        estimator: Stage,
        tables: FlowTables,
        dtype: Any = np.float32,
    ) -> None:
        self.config = config
        self._encoder, self._estimator, self._tables = encoder, estimator, tables
        self._dtype = np.dtype(dtype)

    def conditioning(self, voice: Array) -> Array:
        """See `model.flow.stages.FlowStages`."""
        tables = self._tables
        found: Array = tables.voice_weight @ (voice / np.linalg.norm(voice)) + tables.voice_bias
        return found

    def encode(
        self, ids: NDArray[np.int64], known: NDArray[np.bool_], past: EncoderCache
    ) -> Encoded:
        """See `model.flow.stages.FlowStages`."""
        more = -past.tokens % ROWS if past.tokens else ROWS
        up = self.config.conformer.up

        def grown(rows: Array, by: int) -> Array:
            return np.pad(rows, ((0, 0), (0, 0), (by, 0), (0, 0)))

        feed = {
            "ids": ids,
            "known": known,
            "filled": np.array([past.tokens], np.int64),
            "before": past.before,
            "up_before": past.up_before,
            "k": grown(past.k, more),
            "v": grown(past.v, more),
            "up_k": grown(past.up_k, up * more),
            "up_v": grown(past.up_v, up * more),
        }
        return Encoded(*self._encoder.run(feed))

    def solver(self, times: Array, slots: int) -> StagedSolver:
        """See `model.flow.stages.FlowStages`."""
        tables = self._tables
        places = np.searchsorted(tables.times, times)
        if len(tables.times) <= places.max() or not np.array_equal(tables.times[places], times):
            raise ConfigError(
                f"flow: steps is {len(times)}; built stages have the times of 1 to {TABLE_STEPS}"
                " steps, torch those of any number"
            )
        modulations = tables.modulation[places], tables.last_modulation[places]
        return StagedSolver(self._estimator, self.config, modulations, slots, self._dtype)


class StagedSolver:
    """`model.flow.stages.Solver`.

    Args:
        modulations: of the layers and the last, one for each step.
    """

    def __init__(
        self,
        estimator: Stage,
        config: FlowConfig,
        modulations: tuple[Array, Array],
        slots: int,
        dtype: np.dtype[Any],
    ) -> None:
        self._estimator = estimator
        self._modulation, self._last_modulation = modulations
        steps, sizes = len(self._modulation), config.estimator
        shape = (steps, sizes.layers, 2, sizes.heads, slots, sizes.head_dim)
        # Zeros: rows that are not filled are multiplied with nothing, and nothing times NaN is NaN.
        self._k, self._v = (np.zeros(shape, dtype) for _ in "kv")
        before = (steps, sizes.layers, 2, 2 * sizes.hidden, sizes.kernel - 1)
        self._before = np.zeros(before, np.float32)
        self.begin()

    @property
    def nbytes(self) -> int:
        return self._k.nbytes + self._v.nbytes + self._before.nbytes

    def velocities(
        self,
        step: int,
        x: Array,
        condition: Condition,
        past: slice,
        kept: Sequence[int],
        slots: Sequence[int],
    ) -> Array:
        feed = {
            "x": x,
            **condition._asdict(),
            "modulation": self._modulation[step],
            "last_modulation": self._last_modulation[step],
            "filled": np.array([past.start, past.stop], np.int64),
            "before": self._before[step],
            "k": self._k[step],
            "v": self._v[step],
        }
        velocities, before, k, v = self._estimator.run(feed)
        rows, places = list(kept), list(slots)
        self._k[step][..., places, :] = k[..., rows, :]
        self._v[step][..., places, :] = v[..., rows, :]
        self._before[step] = before
        return velocities

    def begin(self) -> None:
        self._first_before = self._before.copy()

    def reset(self) -> None:
        self._before = self._first_before.copy()


class StagedVocoder:
    """A `model.hift.history.Step` from a file of `vocoder_plans.hift_plan`."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __call__(
        self,
        mel: Array,
        known_f0: Array,
        known_source: Array,
        before: Array,
        opening: bool,
        noise: Array,
    ) -> Rendered:
        feed = {
            "mel": mel,
            "known_f0": known_f0,
            "known_source": known_source,
            "before": before,
            "opening": np.array([opening]),
            "noise": noise,
        }
        return Rendered(*self._stage.run(feed))

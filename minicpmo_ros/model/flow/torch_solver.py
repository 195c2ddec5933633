"""`stages.Solver` in torch, its memory on the device of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minicpmo_ros.model.flow.config import EstimatorConfig

if TYPE_CHECKING:
    from minicpmo_ros.model.flow.estimator import Estimator
    from minicpmo_ros.model.flow.stages import Array, Condition


class TorchSolver:
    """See `stages.Solver`.

    Args:
        times: float32 [N], on the device. slots: for rows of each step.
    """

    @torch.inference_mode()
    def __init__(
        self, estimator: Estimator, sizes: EstimatorConfig, times: Tensor, slots: int
    ) -> None:
        self._estimator = estimator
        self._modulation = estimator.modulation(times)
        weight = estimator.in_proj.weight
        on: Any = {"dtype": weight.dtype, "device": weight.device}
        shape = (len(times), sizes.layers, 2, sizes.heads, slots, sizes.head_dim)
        self._k, self._v = (torch.empty(shape, **on) for _ in "kv")
        before = (len(times), sizes.layers, 2, 2 * sizes.hidden, sizes.kernel - 1)
        self._before = torch.zeros(before, **on)
        self._first_before = self._before

    @property
    def nbytes(self) -> int:
        return self._k.nbytes + self._v.nbytes + self._before.nbytes

    @torch.inference_mode()
    def velocities(
        self,
        step: int,
        x: Array,
        condition: Condition,
        past: slice,
        kept: Sequence[int],
        slots: Sequence[int],
    ) -> Array:
        device = self._k.device
        velocities, before, k, v = self._estimator(
            *(torch.from_numpy(array).to(device) for array in (x, *condition)),
            *(part[step] for part in self._modulation),
            self._before[step],
            self._k[step, :, :, :, past],
            self._v[step, :, :, :, past],
        )
        rows, places = (
            torch.tensor(one, dtype=torch.int64, device=device) for one in (kept, slots)
        )
        for buffer, new in ((self._k, k), (self._v, v)):
            buffer[step].index_copy_(3, places, new.index_select(3, rows))
        self._before[step] = before
        return velocities.float().cpu().numpy()

    def begin(self) -> None:
        self._first_before = self._before.clone()

    def reset(self) -> None:
        self._before = self._first_before.clone()

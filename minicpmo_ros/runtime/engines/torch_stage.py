"""A stage in torch, float32, against which what was built of it is held.

It looks at every value on the way: what half precision cannot hold shows without any engine.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minicpmo_ros.runtime.engines.pieces import Piece, Sizes
from minicpmo_ros.runtime.export import plans
from minicpmo_ros.runtime.export.writer import Importance, Read
from minicpmo_ros.runtime.int4 import can_quantise, quantise

Array = NDArray[Any]
Feed = dict[str, Array]

LARGEST_HALF = 65504.0


def unknown(name: str) -> Array | None:
    """Nothing is known of what enters a matrix."""
    return None


class TorchStage(nn.Module):
    """A piece in torch, float32; `run` as `stages.Stage`.

    Args:
        read: weights by their names in the checkpoint.
        importance: see `writer.export`; None: weights are not rounded.
    """

    def __init__(
        self,
        piece: Piece,
        config: Sizes,
        read: Read,
        importance: Importance | None = None,
    ) -> None:
        super().__init__()
        plan = plans.plan(piece, config)
        named = plan.weights(plans.weights(piece, config, read))
        known = plan.importance(importance or unknown)

        def weights(name: str) -> Tensor:
            found = named(name)
            bits = plan.bits(name)
            if importance is not None and bits and can_quantise(found.shape):
                codes = quantise(found, known(name), bits)
                del found  # a large head would be there twice, beside its codes
                found = codes.weights()
            elif importance is not None and plan.lies_in_half(name, found.shape):
                found = found.astype(np.float16).astype(np.float32)
            return torch.from_numpy(found)

        with torch.device("meta"):
            self.stage = plan.make()
        state = {name: weights(name) for name in self.stage.state_dict()}
        self.stage.load_state_dict(state, assign=True)
        self.stage.eval()
        self._inputs = plan.inputs
        self._seen = _Largest()

    @property
    def largest(self) -> float:
        """Of all values of all runs, those that are float32 in half precision, too, and those that
        a clamp holds, left out. Infinity if one of them is not a number."""
        return self._seen.value

    @torch.inference_mode()
    def run(self, feed: Feed) -> list[Array]:
        plain = [name for name in self._inputs if not name.startswith("cache.")]
        given: list[Any] = [torch.from_numpy(feed[name]) for name in plain]
        if len(plain) < len(self._inputs):
            caches = self._inputs[len(plain) :]
            given.append([torch.from_numpy(feed[name]) for name in caches])
        with self._seen:
            found = self.stage(*given)
        self._seen.count_all()
        if not isinstance(found, tuple):
            return [found.numpy()]
        if not isinstance(found[1], list):
            return [one.numpy() for one in found]
        return [found[0].numpy(), *(rows.numpy() for rows in found[1])]


@dataclass(frozen=True, eq=False)
class _Computed:
    """What a function gave, of which tensors, and the largest value in it."""

    found: Tensor
    of: tuple[Any, ...]
    top: float


class _Largest(TorchFunctionMode):
    """Looks at whatever torch computes: what modules give is not all, a residual stream or the
    inner product of an MLP are larger."""

    # Squares of norms, which are in single precision whatever a stage has.
    WIDE = (torch.pow, torch.mean)
    # Below this is only what `graphs.hide` hides.
    HIDDEN = -1e8

    def __init__(self) -> None:
        super().__init__()
        self.value = 0.0
        # Not counted yet, for a clamp may follow: a product, and the sum that it goes into.
        self._waiting: deque[_Computed] = deque()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is Tensor.clamp:
            self._forget_held(args[0], found)
        # With plain numbers only norms and angles are computed, in single precision as well.
        wide = func in self.WIDE or any(isinstance(one, float) for one in args)
        if isinstance(found, Tensor) and found.is_floating_point() and not wide:
            shown = torch.where(found < self.HIDDEN, 0.0, found)
            top = float(shown.abs().max()) if shown.numel() else 0.0
            self._waiting.append(_Computed(found, tuple(args), top))
            if len(self._waiting) > 2:
                self._count(self._waiting.popleft())
        return found

    def count_all(self) -> None:
        """Nothing follows that could hold what was computed last."""
        while self._waiting:
            self._count(self._waiting.popleft())

    def _count(self, one: _Computed) -> None:
        self.value = max(self.value, one.top if math.isfinite(one.top) else math.inf)

    def _forget_held(self, entered: Tensor, held: Tensor) -> None:
        """Of what goes straight into a clamp, what comes out counts: in half precision it would be
        infinite and end at the same bound. So would a term of the sum that goes in, if that sum
        ends at the bound on the term's side wherever half precision cannot hold the term."""
        if not self._waiting or self._waiting[-1].found is not entered:
            return
        whole = self._waiting.pop()
        if not self._waiting:
            return
        term = self._waiting[-1].found
        if whole.found.shape != term.shape or not any(one is term for one in whole.of):
            return
        beyond = term.abs() > LARGEST_HALF
        same_side = (held != entered) & (held.sign() == term.sign())
        if bool(beyond.any()) and bool(same_side[beyond].all()):
            self._waiting.pop()

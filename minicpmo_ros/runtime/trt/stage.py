"""Stages in TensorRT, see `runtime.stages`: numpy in single precision outside, the engines' own
precision and the card's memory inside. Caches never leave the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.stages import Array
from minicpmo_ros.runtime.trt.cache import DeviceCache
from minicpmo_ros.runtime.trt.card import Card
from minicpmo_ros.runtime.trt.chain import CACHE, Chain
from minicpmo_ros.runtime.trt.engine import Engine
from minicpmo_ros.runtime.trt.library import Library
from minicpmo_ros.runtime.trt.program import Programs
from minicpmo_ros.runtime.trt.turning import CardTurning, HostTurning, Turning


class TrtStage:
    """See `runtime.stages.Stage`.

    Raises:
        EngineError: the file cannot be loaded; later, an input is of a size that it was not built
            for, or the card fails.
    """

    def __init__(self, library: Library, card: Card, file: Path) -> None:
        self._card = card
        with card.lock:
            self._chain = Chain(library, card, [file])
        self._programs: Programs = {}

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        with self._card.lock:
            self._card.use()
            self._chain.put(feed)
            self._chain.program(self._programs).run()
            self._card.synchronize()
            return self._chain.get()


class TrtCachedStage:
    """See `runtime.stages.CachedStage`.

    Args:
        files: in their order, and how many layers are in each.
        kv_heads, head_dim, rope_theta: of the caches; see `runtime.kv.KvRows`.
        turn: engine that turns keys when they move; None: the host does.

    Raises:
        EngineError: as `TrtStage`; or the files are not of such layers, or not of one network.
    """

    def __init__(
        self,
        library: Library,
        card: Card,
        files: Sequence[tuple[Path, int]],
        kv_heads: int,
        head_dim: int,
        rope_theta: float,
        turn: Path | None = None,
    ) -> None:
        self._card = card
        self._sizes = kv_heads, head_dim, rope_theta
        self._layers = sum(layers for _, layers in files)
        with card.lock:
            self._chain = Chain(library, card, [file for file, _ in files])
        for engine, (_, layers) in zip(self._chain.engines, files, strict=True):
            _check_caches(engine, layers, kv_heads, head_dim)
        self._dtype = self._chain.engines[0].tensors[f"{CACHE}0"].dtype
        with card.lock:
            self._turning = self._made(library, turn)

    def cache(self, capacity: int) -> DeviceCache:
        kv_heads, head_dim, rope_theta = self._sizes
        for engine in self._chain.engines:
            engine.check_rows(capacity, f"{CACHE}0")
        with self._card.lock:
            self._card.use()
            return DeviceCache(
                self._card, self._layers, kv_heads, head_dim, self._dtype, capacity, rope_theta,
                self._turning,
            )  # fmt: skip

    def step(self, feed: Mapping[str, Array], cache: DeviceCache, at: int, rows: int) -> Array:
        with self._card.lock:
            self._card.use()
            cache.check_room(rows, at)
            cache.reserve(at + rows)
            self._chain.put({**feed, "past": np.array([at], np.int64)})
            program = self._chain.program(cache.programs, cache)
            program.run()
            assert program.new is not None
            cache.put(program.new, at, rows)
            self._card.synchronize()
            cache.length = max(cache.length, at + rows)
            return self._chain.get()[0]

    def _made(self, library: Library, turn: Path | None) -> Turning:
        kv_heads, head_dim, rope_theta = self._sizes
        if turn is None:
            return HostTurning(self._card, head_dim, self._dtype, rope_theta)
        return CardTurning(
            library, self._card, turn, self._layers, kv_heads, head_dim, self._dtype, rope_theta
        )


def _check_caches(engine: Engine, layers: int, kv_heads: int, head_dim: int) -> None:
    found = [tensor for tensor in engine.inputs if tensor.name.startswith(CACHE)]
    fits = all((one.shape[0], one.shape[2]) == (kv_heads, head_dim) for one in found)
    if len(found) != 2 * layers or not fits:
        raise EngineError(
            f"{engine.file} has caches {[one.shape for one in found]}, and {layers} layers with"
            f" {kv_heads} heads of {head_dim} are asked for: it is of another network"
        )

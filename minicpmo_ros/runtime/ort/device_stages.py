"""Stages in onnxruntime whose caches, and what files hand to each other, lie on a device; see
`runtime.stages`. Numpy in single precision outside, the files' own precision inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.ort.device import Device, numbers
from minicpmo_ros.runtime.ort.device_cache import OrtCache
from minicpmo_ros.runtime.stages import Array

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(bool)": np.dtype(np.bool_),
}


class OrtDeviceStage:
    """See `runtime.stages.Stage`."""

    def __init__(self, device: Device, file: Path) -> None:
        self._device = device
        self._session = device.session(file)
        self._dtypes = _inputs(self._session)

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        given = {name: array.astype(self._dtypes[name], copy=False) for name, array in feed.items()}
        try:
            found = self._session.run(None, given)
        except Exception as error:
            raise self._device.failed(error) from None
        return [_single(array) for array in found]


class OrtDeviceCachedStage:
    """See `runtime.stages.CachedStage`.

    Args:
        files: in their order, and how many layers are in each.
        kv_heads, head_dim, rope_theta: of the caches; see `runtime.kv.KvRows`.

    Raises:
        EngineError: a file cannot be loaded, or has other caches.
    """

    def __init__(
        self,
        device: Device,
        files: Sequence[tuple[Path, int]],
        kv_heads: int,
        head_dim: int,
        rope_theta: float,
    ) -> None:
        self._device = device
        self._sizes = kv_heads, head_dim, rope_theta
        self._parts = [_Part(device, file, layers) for file, layers in files]
        self._layers = sum(layers for _, layers in files)

    def cache(self, capacity: int) -> OrtCache:
        kv_heads, head_dim, rope_theta = self._sizes
        dtype = self._parts[0].dtypes["cache.0"]
        return OrtCache(self._device, self._layers, kv_heads, capacity, head_dim, rope_theta, dtype)

    def step(self, feed: Mapping[str, Array], cache: OrtCache, at: int, rows: int) -> Array:
        cache.check_room(rows, at)
        cache.reserve(at + rows)
        past = np.array([at], np.int64)
        where = self._device.put(numbers(at, rows))
        given: dict[str, Any] = {**feed, "past": past}
        first = 0
        for number, part in enumerate(self._parts):
            if number not in cache.passes:
                buffers = cache.buffers[first : first + 2 * part.layers]
                cache.passes[number] = _Pass(self._device, part, buffers)
            hidden = cache.passes[number].run(given, rows, where)
            if number + 1 < len(self._parts):
                given = {self._parts[number + 1].takes: hidden, "past": past}
            first += 2 * part.layers
        cache.length = max(cache.length, at + rows)
        return _single(hidden.numpy())


class _Part:
    """One file. takes: the name of its first input; dtypes: of all inputs by name."""

    def __init__(self, device: Device, file: Path, layers: int) -> None:
        self.layers = layers
        self.session = device.session(file)
        self.dtypes = _inputs(self.session)
        self.takes = next(iter(self.dtypes))
        self.outputs = [one.name for one in self.session.get_outputs()]
        caches = sum(name.startswith("cache.") for name in self.dtypes)
        if caches != 2 * layers:
            raise EngineError(
                f"{file} has {caches} caches, and {layers} layers are asked for: it is of another"
                " network; `minicpmo engines build` makes it anew"
            )
        self.writer = device.writer(2 * layers, self.dtypes["cache.0"])


class _Pass:
    """A file bound to a cache's buffers: what stays is bound once, and new rows keep their memory
    as long as there are as many of them."""

    def __init__(self, device: Device, part: _Part, buffers: Sequence[Any]) -> None:
        self._device, self._part = device, part
        self._step = part.session.io_binding()
        self._write = part.writer.io_binding()
        for index, buffer in enumerate(buffers):
            self._step.bind_ortvalue_input(f"cache.{index}", buffer)
            self._write.bind_ortvalue_input(f"cache.{index}", buffer)
            self._write.bind_ortvalue_output(f"out.{index}", buffer)
        self._rows = 0
        self._hidden: Any = None

    def run(self, given: Mapping[str, Any], rows: int, where: Any) -> Any:
        """Run the file, and write its new rows to those that `where` tells; gives back what it
        hands on, an OrtValue on the device, the same at each call."""
        for name, value in given.items():
            if isinstance(value, np.ndarray):
                array = value.astype(self._part.dtypes[name], copy=False)
                self._step.bind_cpu_input(name, np.ascontiguousarray(array))
            else:
                self._step.bind_ortvalue_input(name, value)
        anew = rows != self._rows
        if anew:
            # Until it has run, no count of rows is bound: where it fails, the next call binds anew.
            self._rows = 0
            for name in self._part.outputs:
                self._device.bind_here(self._step, name)
        self._device.run(self._part.session, self._step)
        if anew:
            self._hidden, *new = self._step.get_outputs()
            for index, one in enumerate(new):
                self._write.bind_ortvalue_input(f"rows.{index}", one)
            self._rows = rows
        self._write.bind_ortvalue_input("numbers", where)
        self._device.run(self._part.writer, self._write)
        return self._hidden


def _inputs(session: Any) -> dict[str, np.dtype[Any]]:
    return {one.name: _DTYPES[one.type] for one in session.get_inputs()}


def _single(array: Array) -> Array:
    """The caller's to keep, float16 as float32."""
    half = array.dtype == np.float16
    return array.astype(np.float32) if half else array.copy()


class OrtDeviceLoader:
    """Stages of files that have their place in the cache, on a device; see `Device`."""

    def __init__(self, device: str, threads: int = 0) -> None:
        self._device = Device(device, threads)

    def stage(self, file: Path) -> OrtDeviceStage:
        return OrtDeviceStage(self._device, file)

    def cached(
        self, files: Sequence[tuple[Path, int]], sizes: tuple[int, int, float]
    ) -> OrtDeviceCachedStage:
        return OrtDeviceCachedStage(self._device, files, *sizes)

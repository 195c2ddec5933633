"""All that is asked of CUDA: memory on the card and beside it, copies, one stream, captured graphs.

Through the cuda-python bindings (cuda.bindings), no torch. Everything that stages do is put on one
stream and happens in that order; `Card.synchronize` waits for it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.engines.disk import bytes_text

# What TensorRT asks of the addresses that it is given.
ALIGNMENT = 256


class Card:
    """One card of this machine and its stream.

    Attributes:
        stream: as a number, for TensorRT.
        scratch: memory that all engines use for what is computed on the way: they run in turn.
        lock: held by who puts a series of things on the stream.

    Raises:
        EngineError: the bindings are not installed; there is no driver or no such card. So does
            every method, when CUDA reports an error, also of what was begun earlier.
    """

    def __init__(self, index: int = 0, cuda: Any = None) -> None:
        """cuda: the module cuda.bindings.runtime, or what stands for it."""
        self._cuda = _bindings() if cuda is None else cuda
        self._index = index
        self._check_exists()
        self.lock = threading.RLock()
        self.use()
        without_waiting = self._cuda.cudaStreamNonBlocking
        self._stream = self._call("cudaStreamCreateWithFlags", without_waiting)
        self.stream = int(self._stream)
        self.scratch = Growing(self)

    @cached_property
    def name(self) -> str:
        properties = self._call("cudaGetDeviceProperties", self._index)
        name = properties.name
        return name.decode() if isinstance(name, bytes) else str(name)

    @cached_property
    def target(self) -> str:
        """Its compute capability as `builder` names it: sm89."""
        kinds = self._cuda.cudaDeviceAttr
        major, minor = (
            self._call("cudaDeviceGetAttribute", kind, self._index)
            for kind in (
                kinds.cudaDevAttrComputeCapabilityMajor,
                kinds.cudaDevAttrComputeCapabilityMinor,
            )
        )
        return f"sm{major}{minor}"

    @cached_property
    def board(self) -> str:
        """What TensorRT tunes an engine for: "sm87 Orin, 16 multiprocessors". Boards of a Jetson's
        family share their capability, and mostly the name that CUDA has for them."""
        kind = self._cuda.cudaDeviceAttr.cudaDevAttrMultiProcessorCount
        count = self._call("cudaDeviceGetAttribute", kind, self._index)
        return f"{self.target} {self.name}, {count} multiprocessors"

    @cached_property
    def driver(self) -> str:
        """The newest CUDA that the driver knows: 13.0."""
        version = self._call("cudaDriverGetVersion")
        return f"{version // 1000}.{version % 1000 // 10}"

    @property
    def about(self) -> str:
        """For people, in one line."""
        return f"{self.name} ({self.target}, driver for CUDA {self.driver})"

    @property
    def free_bytes(self) -> int:
        """Memory of the card that nobody uses."""
        return int(self._call("cudaMemGetInfo")[0])

    @property
    def total_bytes(self) -> int:
        """Memory of the card, all of it."""
        return int(self._call("cudaMemGetInfo")[1])

    @cached_property
    def shares_memory(self) -> bool:
        """Whether it has none of its own but takes of the machine's, as on a Jetson."""
        integrated = self._cuda.cudaDeviceAttr.cudaDevAttrIntegrated
        return bool(self._call("cudaDeviceGetAttribute", integrated, self._index))

    def use(self) -> None:
        """Have the calls of this thread go to this card."""
        self._call("cudaSetDevice", self._index)

    def memory(self, nbytes: int) -> Memory:
        """Memory on the card, all zeros."""
        nbytes = max(nbytes, ALIGNMENT)
        address = self._allocate("cudaMalloc", nbytes)
        made = Memory(self._cuda.cudaFree, address, nbytes)
        self._call("cudaMemsetAsync", address, 0, nbytes, self._stream)
        return made

    def pinned(self, nbytes: int) -> Pinned:
        """Memory of the host that copies go to and come from without waiting."""
        nbytes = max(nbytes, 1)
        address = self._allocate("cudaHostAlloc", nbytes, 0)
        return Pinned(self._cuda.cudaFreeHost, address, nbytes)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """From address to address, each on the card or pinned; later, in the stream's order."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDefault
        self._call("cudaMemcpyAsync", target, source, nbytes, kind, self._stream)

    def copy_strips(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, count: int
    ) -> None:
        """`count` pieces of `width` bytes, which begin a pitch apart on each side."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDefault
        self._call(
            "cudaMemcpy2DAsync",
            target, target_pitch, source, source_pitch, width, count, kind, self._stream,
        )  # fmt: skip

    def clear_strips(self, target: int, pitch: int, width: int, count: int) -> None:
        """Zeros into `count` pieces of `width` bytes, which begin a pitch apart."""
        self._call("cudaMemset2DAsync", target, pitch, 0, width, count, self._stream)

    def synchronize(self) -> None:
        """Wait until all that is on the stream is done."""
        self._call("cudaStreamSynchronize", self._stream)

    @contextmanager
    def captured(self) -> Iterator[Graph]:
        """What is put on the stream in here does not happen but is kept, to be launched."""
        graph = Graph(self)
        # Other threads may go on to allocate.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            yield graph
        except BaseException:
            self._cuda.cudaStreamEndCapture(self._stream)
            raise
        graph.instantiate(self._call("cudaStreamEndCapture", self._stream))

    def _call(self, name: str, *given: Any) -> Any:
        error, *found = getattr(self._cuda, name)(*given)
        if error != self._cuda.cudaError_t.cudaSuccess:
            raise EngineError(f"CUDA on card {self._index}: {name}: {self._text(error)}")
        return found[0] if len(found) == 1 else tuple(found)

    def _allocate(self, name: str, nbytes: int, *given: Any) -> int:
        error, address = getattr(self._cuda, name)(nbytes, *given)
        if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
            raise EngineError(
                f"{self.name} has no {bytes_text(nbytes)} left, {bytes_text(self.free_bytes)} are"
                " free; close what else uses the card, or choose a recipe with a smaller"
                " kv_capacity or matrices of fewer bits"
            )
        if error != self._cuda.cudaError_t.cudaSuccess:
            raise EngineError(f"CUDA on card {self._index}: {name}: {self._text(error)}")
        return int(address)

    def _text(self, error: Any) -> str:
        text = self._cuda.cudaGetErrorString(error)[1]
        return text.decode() if isinstance(text, bytes) else str(text)

    def _check_exists(self) -> None:
        error, count = self._cuda.cudaGetDeviceCount()
        if error != self._cuda.cudaError_t.cudaSuccess or not count:
            raise EngineError(
                f"there is no NVIDIA card here that can be used ({self._text(error)}): it needs a"
                " driver for the CUDA that TensorRT is made for (TensorRT-RTX: 580 or later); or"
                " choose a recipe for the CPU"
            )
        if self._index >= count:
            raise EngineError(f"there is no card {self._index}, only {count}, counted from 0")


class Memory:
    """Memory on a card, given back when nobody holds this any more."""

    def __init__(self, free: Any, address: int, nbytes: int) -> None:
        self._free = free
        self.address = address
        self.nbytes = nbytes

    def __del__(self) -> None:
        self._free(self.address)  # waits for what still uses it


class Pinned(Memory):
    """Memory of the host; `bytes` are its bytes, uint8 [nbytes]."""

    @cached_property
    def bytes(self) -> NDArray[np.uint8]:
        place = (ctypes.c_uint8 * self.nbytes).from_address(self.address)
        return np.ctypeslib.as_array(place)


class Growing:
    """Memory on a card that becomes as large as what is asked of it at most."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._memory: Memory | None = None

    @property
    def address(self) -> int:
        return self._memory.address if self._memory else 0

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes if self._memory else 0

    def reserve(self, nbytes: int) -> None:
        """Have so many bytes. The address may be another one then, what was there is gone."""
        if nbytes > self.nbytes or not self._memory:
            self._memory = None  # first, so that never both are there
            self._memory = self._card.memory(nbytes)


class Graph:
    """Work that was captured from a stream."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._cuda = card._cuda
        self._ready: Any = None

    def instantiate(self, graph: Any) -> None:
        self._ready = self._card._call("cudaGraphInstantiate", graph, 0)
        self._card._call("cudaGraphDestroy", graph)

    def launch(self) -> None:
        """Do it again, with the addresses it was captured with."""
        self._card._call("cudaGraphLaunch", self._ready, self._card._stream)

    def __del__(self) -> None:
        if self._ready is not None:
            self._cuda.cudaGraphExecDestroy(self._ready)


def _bindings() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise EngineError(
            f"cuda-python is not installed ({error}): install the extra rtx (on Jetson: pip install"
            " 'cuda-bindings<13' for JetPack 6, 'cuda-bindings<14' for JetPack 7)"
        ) from None
    return runtime

# ruff: noqa: N801, N815, N818 - names are those of CUDA
"""A card of main memory, in place of the module cuda.bindings.runtime, stricter than a real one.

Work on the stream is done when somebody waits for it, not before, so that memory which is used or
changed too early shows. Memory is full of NaN until written, and every access must lie within what
is allocated.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

ALIGNMENT = 256
Work = Callable[[], None]


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(IntEnum):
    cudaMemcpyDefault = 4


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class cudaDeviceAttr(IntEnum):
    cudaDevAttrMultiProcessorCount = 16
    cudaDevAttrIntegrated = 18
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


class Fault(AssertionError):
    """What a real card would answer with wrong numbers or an end of the process."""


@dataclass
class Properties:
    name: bytes = b"Fake RTX 4090"


@dataclass
class FakeCuda:
    """See the module's first lines. Attributes count what was done.

    total: bytes on the card. devices: cards that there are. integrated: they have no memory of
    their own. copied: bytes, from card to card;
    crossed: bytes, between the card and the host.
    """

    total: int = 1 << 30
    devices: int = 1
    integrated: bool = False
    free: int = field(init=False)
    launches: int = 0
    captures: int = 0
    copies: int = 0
    copied: int = 0
    crossed: int = 0
    capturing: list[Work] | None = None
    capture_fails: bool = False
    multiprocessors: int = 128
    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaDeviceAttr = cudaDeviceAttr
    cudaStreamNonBlocking = 1

    def __post_init__(self) -> None:
        self.free = self.total
        self._queue: list[Work] = []
        self._memory: dict[int, tuple[int, Any, bool]] = {}

    # What the tests and the fake engines ask.

    def put(self, work: Work) -> None:
        """On the stream, or into the graph that is captured."""
        (self._queue if self.capturing is None else self.capturing).append(work)

    def view(self, address: int, nbytes: int, *, on_card: bool = False) -> np.ndarray:
        """Bytes at an address, all within one piece of memory."""
        if not self._is_device(address, nbytes) and on_card:
            raise Fault(f"address {address:#x} is of the host, not of the card")
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def _is_device(self, address: int, nbytes: int) -> bool:
        for start, (size, _, is_device) in self._memory.items():
            if start <= address and address + nbytes <= start + size:
                return is_device
        raise Fault(f"{nbytes} bytes at {address:#x} are not within any memory that is held")

    @property
    def allocations(self) -> int:
        return len(self._memory)

    # What cuda.bindings.runtime has.

    def cudaGetDeviceCount(self) -> tuple[cudaError_t, int]:
        return (
            cudaError_t.cudaSuccess if self.devices else cudaError_t.cudaErrorNoDevice
        ), self.devices

    def cudaSetDevice(self, index: int) -> tuple[cudaError_t]:
        return (cudaError_t.cudaSuccess,)

    def cudaDriverGetVersion(self) -> tuple[cudaError_t, int]:
        return cudaError_t.cudaSuccess, 13010

    def cudaGetDeviceProperties(self, index: int) -> tuple[cudaError_t, Properties]:
        return cudaError_t.cudaSuccess, Properties()

    def cudaDeviceGetAttribute(self, kind: cudaDeviceAttr, index: int) -> tuple[cudaError_t, int]:
        if kind == cudaDeviceAttr.cudaDevAttrIntegrated:
            return cudaError_t.cudaSuccess, int(self.integrated)
        if kind == cudaDeviceAttr.cudaDevAttrMultiProcessorCount:
            return cudaError_t.cudaSuccess, self.multiprocessors
        is_major = kind == cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor
        return cudaError_t.cudaSuccess, 8 if is_major else 9

    def cudaMemGetInfo(self) -> tuple[cudaError_t, int, int]:
        return cudaError_t.cudaSuccess, self.free, self.total

    def cudaGetErrorString(self, error: cudaError_t) -> tuple[cudaError_t, bytes]:
        return cudaError_t.cudaSuccess, error.name.encode()

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[cudaError_t, int]:
        return cudaError_t.cudaSuccess, 7

    def cudaMalloc(self, nbytes: int) -> tuple[cudaError_t, int | None]:
        if self.capturing is not None:
            return cudaError_t.cudaErrorStreamCaptureUnsupported, None
        if nbytes > self.free:
            return cudaError_t.cudaErrorMemoryAllocation, None
        self.free -= nbytes
        return cudaError_t.cudaSuccess, self._hold(nbytes, is_device=True)

    def cudaHostAlloc(self, nbytes: int, flags: int) -> tuple[cudaError_t, int | None]:
        if self.capturing is not None:
            return cudaError_t.cudaErrorStreamCaptureUnsupported, None
        return cudaError_t.cudaSuccess, self._hold(nbytes, is_device=False)

    def cudaFree(self, address: int) -> tuple[cudaError_t]:
        self.free += self._release(address, is_device=True)
        return (cudaError_t.cudaSuccess,)

    def cudaFreeHost(self, address: int) -> tuple[cudaError_t]:
        self._release(address, is_device=False)
        return (cudaError_t.cudaSuccess,)

    def cudaMemsetAsync(
        self, address: int, value: int, nbytes: int, stream: int
    ) -> tuple[cudaError_t]:
        self.put(lambda: self.view(address, nbytes).fill(value))
        return (cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(
        self, target: int, source: int, nbytes: int, kind: cudaMemcpyKind, stream: int
    ) -> tuple[cudaError_t]:
        return self.cudaMemcpy2DAsync(target, nbytes, source, nbytes, nbytes, 1, kind, stream)

    def cudaMemcpy2DAsync(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int,
        height: int, kind: cudaMemcpyKind, stream: int,
    ) -> tuple[cudaError_t]:  # fmt: skip
        if width > target_pitch or width > source_pitch:
            return (cudaError_t.cudaErrorInvalidValue,)

        def copy() -> None:
            self.copies += 1
            if self._is_device(target, width) and self._is_device(source, width):
                self.copied += width * height
            else:
                self.crossed += width * height
            strips = [
                (
                    self.view(target + i * target_pitch, width),
                    self.view(source + i * source_pitch, width),
                )
                for i in range(height)
            ]
            starts = np.arange(height, dtype=np.int64)
            theirs, ours = target + starts * target_pitch, source + starts * source_pitch
            if (np.abs(theirs[:, None] - ours[None, :]) < width).any():
                raise Fault("a copy overlaps itself")
            for there, here in strips:
                there[...] = here

        self.put(copy)
        return (cudaError_t.cudaSuccess,)

    def cudaMemset2DAsync(
        self, address: int, pitch: int, value: int, width: int, height: int, stream: int
    ) -> tuple[cudaError_t]:
        if width > pitch:
            return (cudaError_t.cudaErrorInvalidValue,)
        for number in range(height):
            self.cudaMemsetAsync(address + number * pitch, value, width, stream)
        return (cudaError_t.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[cudaError_t]:
        if self.capturing is not None:
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        while self._queue:
            self._queue.pop(0)()
        return (cudaError_t.cudaSuccess,)

    def cudaStreamBeginCapture(
        self, stream: int, mode: cudaStreamCaptureMode
    ) -> tuple[cudaError_t]:
        self.capturing = []
        return (cudaError_t.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[cudaError_t, list[Work] | None]:
        graph, self.capturing = self.capturing, None
        if self.capture_fails:
            return cudaError_t.cudaErrorStreamCaptureUnsupported, None
        self.captures += 1
        return cudaError_t.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: list[Work], flags: int) -> tuple[cudaError_t, list[Work]]:
        return cudaError_t.cudaSuccess, list(graph)

    def cudaGraphDestroy(self, graph: list[Work]) -> tuple[cudaError_t]:
        graph.clear()
        return (cudaError_t.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: list[Work]) -> tuple[cudaError_t]:
        return self.cudaGraphDestroy(graph)

    def cudaGraphLaunch(self, graph: list[Work], stream: int) -> tuple[cudaError_t]:
        self.launches += 1
        for work in list(graph):
            self.put(work)
        return (cudaError_t.cudaSuccess,)

    def _hold(self, nbytes: int, *, is_device: bool) -> int:
        buffer = np.full(nbytes + ALIGNMENT, 0xFF, np.uint8)
        address = -(-buffer.ctypes.data // ALIGNMENT) * ALIGNMENT
        self._memory[address] = nbytes, buffer, is_device
        return address

    def _release(self, address: int, *, is_device: bool) -> int:
        if self.capturing is not None:
            raise Fault("memory is given back while a graph is captured")
        self.cudaStreamSynchronize(7)
        nbytes, _, was_device = self._memory.pop(address)
        assert was_device == is_device
        return nbytes

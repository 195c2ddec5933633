"""TensorRT without a card: an "engine" is the ONNX file itself, run by onnxruntime from and to the
addresses it was told, which lie in the memory of `FakeCuda`. Stricter than the real one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from minicpmo_ros.runtime.trt.profiles import Profile, sizes
from tests.runtime.trt.fake_cuda import ALIGNMENT, FakeCuda, Fault

TYPES = {1: np.float32, 7: np.int64, 9: np.bool_, 10: np.float16}
SCRATCH_BYTES = 1000
MAGIC = b"fake engine"


class Diagnostics(IntEnum):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    MALFORMED_ENGINE = 32


class TensorIOMode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class Allocation(IntEnum):
    STATIC = 0
    USER_MANAGED = 2


class Specialization(IntEnum):
    LAZY = 0
    EAGER = 1


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)

    def __init__(self) -> None:
        pass


def write_engine(
    file: Path,
    onnx_file: Path,
    profiles: Sequence[Profile],
    version: str = "1.0",
    card: str = "sm89",
) -> Path:
    """What `builder.build` would write."""
    content = {"onnx": str(onnx_file), "profiles": profiles, "version": version, "card": card}
    file.write_bytes(MAGIC + json.dumps(content).encode())
    return file


def fake_module(cuda: FakeCuda, *, rtx: bool = True) -> Any:
    """The module tensorrt_rtx, or tensorrt as JetPack has it: without what only the other has."""
    module = SimpleNamespace(
        __version__="1.0",
        ILogger=ILogger,
        TensorIOMode=TensorIOMode,
        ExecutionContextAllocationStrategy=Allocation,
        EngineInvalidityDiagnostics=Diagnostics,
        nptype=lambda kind: kind,
    )
    module.Runtime = lambda logger: Runtime(cuda, module, logger, rtx)
    if rtx:
        module.DynamicShapesKernelSpecializationStrategy = Specialization
    return module


@dataclass
class Runtime:
    cuda: FakeCuda
    module: Any
    logger: Any
    rtx: bool

    def __post_init__(self) -> None:
        if self.rtx:
            self.get_engine_validity = self._validity

    def deserialize_cuda_engine(self, content: Any) -> Any:
        wrong = self._wrong(bytes(content))
        if wrong:
            self.logger.log(ILogger.ERROR, f"Error Code 1: {wrong.name} is wrong")
            return None
        about = json.loads(bytes(content)[len(MAGIC) :])
        made = Engine(self.cuda, self.logger, Path(about["onnx"]), about["profiles"])
        if self.rtx:
            made.create_runtime_config = lambda: RuntimeConfig(made)  # type: ignore[attr-defined]
        return made

    def _validity(self, content: Any) -> tuple[int, int]:
        wrong = self._wrong(bytes(content))
        return (2, int(wrong)) if wrong else (0, 0)

    def _wrong(self, content: bytes) -> Diagnostics | None:
        if not content.startswith(MAGIC):
            return Diagnostics.MALFORMED_ENGINE
        about = json.loads(content[len(MAGIC) :])
        if about["version"] != self.module.__version__:
            return Diagnostics.VERSION_MISMATCH
        return None if about["card"] == "sm89" else Diagnostics.UNSUPPORTED_CC


@dataclass
class KernelCache:
    """Grows with what is compiled. Of another card it takes nothing."""

    compiled: list[str] = field(default_factory=list)

    def compile(self, kernel: str) -> None:
        if kernel not in self.compiled:
            self.compiled.append(kernel)

    def deserialize(self, content: bytes) -> bool:
        if not content.startswith(b"sm89 "):
            return False
        self.compiled = content.decode().split()[1:]
        return True

    def serialize(self) -> Any:
        return memoryview(" ".join(["sm89", *self.compiled]).encode())


@dataclass
class RuntimeConfig:
    engine: Engine
    allocation: Allocation = Allocation.STATIC
    dynamic_shapes_kernel_specialization_strategy: Specialization = Specialization.LAZY
    kernels: KernelCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: Allocation) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> KernelCache:
        return KernelCache()

    def set_runtime_cache(self, cache: KernelCache) -> bool:
        self.kernels = cache
        return True


class Engine:
    """What `ICudaEngine` offers, of an ONNX file and the profiles it was "built" with."""

    def __init__(
        self, cuda: FakeCuda, logger: Any, file: Path, profiles: Sequence[Profile]
    ) -> None:
        import onnx
        import onnxruntime

        self.cuda, self.logger = cuda, logger
        graph = onnx.load(file, load_external_data=False).graph
        self.tensors = {one.name: one for one in (*graph.input, *graph.output)}
        self.names = list(self.tensors)
        self.inputs = [one.name for one in graph.input]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(file, options)
        self.ranges = [
            {
                name: [tuple(one) for one in zip(*self._ranges(name, profile), strict=True)]
                for name in self.inputs
            }
            for profile in profiles
        ]
        self.num_io_tensors = len(self.names)
        self.num_optimization_profiles = len(profiles)
        self.contexts: list[Context] = []

    def dimensions(self, name: str) -> list[int | str]:
        shape = self.tensors[name].type.tensor_type.shape.dim
        return [one.dim_param or one.dim_value for one in shape]

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return TYPES[self.tensors[name].type.tensor_type.elem_type]

    def get_tensor_shape(self, name: str) -> list[int]:
        return [-1 if isinstance(one, str) else one for one in self.dimensions(name)]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return self.ranges[profile][name]

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return SCRATCH_BYTES + len(self.names)

    def create_execution_context(self, how: RuntimeConfig | Allocation) -> Context:
        allocation = how.allocation if isinstance(how, RuntimeConfig) else how
        assert allocation == Allocation.USER_MANAGED, "contexts share one scratch memory"
        made = Context(self, how if isinstance(how, RuntimeConfig) else None)
        self.contexts.append(made)
        return made

    def _ranges(self, name: str, profile: Profile) -> list[tuple[int, int, int]]:
        return [
            sizes(name, one, -1, profile) if isinstance(one, str) else (one, one, one)
            for one in self.dimensions(name)
        ]


class Context:
    """What `IExecutionContext` offers. Faults where the real one would compute nonsense."""

    def __init__(self, engine: Engine, config: RuntimeConfig | None) -> None:
        self.engine = engine
        self.config = config
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None
        self.ran: set[tuple[Any, ...]] = set()
        if config is not None:
            self.is_stream_capturable = lambda stream: True

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        least, _, most = self.engine.ranges[self.profile][name]
        if not all(low <= one <= high for low, one, high in zip(least, shape, most, strict=True)):
            self.engine.logger.log(ILogger.ERROR, f"{name} {shape} is outside the profile")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        known = {
            str(dimension): size
            for input_name, shape in self.shapes.items()
            for dimension, size in zip(self.engine.dimensions(input_name), shape, strict=True)
        }
        # A graph names a size that follows from another "2*ids - 6".
        return tuple(
            eval(one, {}, known) if isinstance(one, str) else one
            for one in self.engine.dimensions(name)
        )

    def set_tensor_address(self, name: str, address: int) -> bool:
        if address % ALIGNMENT:
            raise Fault(f"{name} is at {address:#x}, which is not aligned")
        self.addresses[name] = address
        return True

    def set_device_memory(self, address: int, nbytes: int) -> None:
        self.scratch = address, nbytes

    def execute_async_v3(self, stream: int) -> bool:
        engine, cuda = self.engine, self.engine.cuda
        missing = [name for name in engine.inputs if name not in self.shapes]
        missing += [name for name in engine.names if name not in self.addresses]
        if missing or self.profile is None or self.scratch is None:
            raise Fault(f"run without {missing}, profile {self.profile}, scratch {self.scratch}")
        shapes, addresses, scratch = dict(self.shapes), dict(self.addresses), self.scratch
        outputs = {name: self.get_tensor_shape(name) for name in engine.names if name not in shapes}
        key = tuple(shapes.items())
        if cuda.capturing is not None and key not in self.ran:
            raise Fault("captured before it ran once: kernels would be loaded while capturing")
        if self.config and self.config.kernels:
            self.config.kernels.compile(str(key).replace(" ", ""))
        self.ran.add(key)

        def run() -> None:
            if self.shapes != shapes:
                raise Fault("a context that is in a graph, or not yet through, got other shapes")
            assert scratch[1] >= engine.get_device_memory_size_for_profile_v2(0)
            cuda.view(*scratch, on_card=True).fill(0xFF)
            feed = {name: self._view(name, addresses, shapes) for name in engine.inputs}
            found = engine.session.run(None, {name: one.copy() for name, one in feed.items()})
            for name, array in zip(outputs, found, strict=True):
                self._view(name, addresses, outputs)[...] = array

        cuda.put(run)
        return True

    def _view(self, name: str, addresses: dict[str, int], shapes: dict[str, Any]) -> np.ndarray:
        dtype = np.dtype(self.engine.get_tensor_dtype(name))
        nbytes = int(np.prod(shapes[name])) * dtype.itemsize
        place = self.engine.cuda.view(addresses[name], nbytes, on_card=True)
        return place.view(dtype).reshape(shapes[name])

"""An engine file, loaded on a card, and the execution contexts that run it."""

from __future__ import annotations

import mmap
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.trt.card import Card
from minicpmo_ros.runtime.trt.kernels import Kernels
from minicpmo_ros.runtime.trt.library import Library, words

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Tensor:
    """An input or output. shape: -1 where a dimension may have several sizes."""

    name: str
    dtype: np.dtype[Any]
    shape: Shape
    is_input: bool


class Engine:
    """One file, loaded.

    Args:
        kernels: where what is compiled for this card is kept; None: beside the file.

    Raises:
        EngineError: the file is missing or broken, or is of another card, driver or version.
    """

    def __init__(
        self, library: Library, card: Card, file: Path, kernels: Path | None = None
    ) -> None:
        self.file = file
        self.card = card
        self._library = library
        self._module = library.module
        self._kernels = Kernels(kernels or file.with_suffix(".kernels"))
        card.use()
        self._engine = self._loaded()
        self.tensors = {tensor.name: tensor for tensor in self._tensors()}
        self.inputs = [tensor for tensor in self.tensors.values() if tensor.is_input]
        self.outputs = [tensor for tensor in self.tensors.values() if not tensor.is_input]
        self._ranges = [self._range(index) for index in range(self._profiles)]
        self._contexts: dict[Hashable, Execution] = {}
        card.scratch.reserve(
            max(
                self._engine.get_device_memory_size_for_profile_v2(i) for i in range(self._profiles)
            )
        )

    def profile(self, shapes: Shapes) -> int:
        """The first profile that takes inputs of these shapes.

        Raises:
            EngineError: none does.
        """
        for index, ranges in enumerate(self._ranges):
            if all(_within(shape, *ranges[name]) for name, shape in shapes.items()):
                return index
        given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise EngineError(
            f"{self.file.name} was not built for {given}, but for {self._ranges}; a recipe"
            " with more prefill, kv_capacity or patches makes engines that take more"
        )

    def is_least(self, profile: int, shapes: Shapes) -> bool:
        """Whether these inputs are the smallest that a profile takes: one token, for a decoder."""
        return all(shape == self._ranges[profile][name][0] for name, shape in shapes.items())

    def largest(self, cache: str) -> Iterator[tuple[dict[str, Shape], int]]:
        """By profile: the largest shapes of all inputs, and how many rows such a cache has then."""
        for ranges in self._ranges:
            most = {name: shape for name, (_, shape) in ranges.items()}
            yield most, most[cache][1] if cache in most else 0

    def check_rows(self, rows: int, cache: str) -> None:
        """Raise EngineError unless some profile takes a cache of so many rows."""
        most = max(found for _, found in self.largest(cache))
        if rows > most:
            raise EngineError(
                f"{self.file.name} was built for caches of {most} rows, and {rows} are asked for;"
                " build it with a larger kv_capacity, or ask for less"
            )

    def execution(self, profile: int, apart: Hashable = None) -> Execution:
        """A context for a profile. What is captured in a graph needs one of its own, which runs no
        other shapes: `apart` says for what."""
        key = profile, apart
        if key not in self._contexts:
            context = self._created(eager=apart is not None)
            if not context.set_optimization_profile_async(profile, self.card.stream):
                raise self._error(f"does not take its profile {profile}")
            self.card.synchronize()
            self._contexts[key] = Execution(self, context)
        return self._contexts[key]

    def save_kernels(self) -> None:
        """Keep what was compiled for this card, so that the next start is faster."""
        self._kernels.save()

    def _loaded(self) -> Any:
        if not self.file.is_file() or not self.file.stat().st_size:
            raise EngineError(f"{self.file} is not there; `minicpmo engines build` makes it")
        self._library.log.taken()
        # It has to outlive the engine.
        self._runtime = self._module.Runtime(self._library.log)
        with (
            self.file.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            engine = self._runtime.deserialize_cuda_engine(content)
            if engine is None:
                reasons = self._library.log.taken()
                raise self._error(f"cannot be loaded: {words(reasons)}{self._why(content)}")
        return engine

    def _why(self, content: Any) -> str:
        """What the library finds wrong with the file as such, where it can tell."""
        if not hasattr(self._runtime, "get_engine_validity"):
            return ""
        _, bits = self._runtime.get_engine_validity(content)
        self._library.log.taken()
        known = self._module.EngineInvalidityDiagnostics.__members__.items()
        found = [name.lower().replace("_", " ") for name, bit in known if int(bits) & int(bit)]
        return f" ({', '.join(found)})" if found else ""

    def _error(self, what: str) -> EngineError:
        return EngineError(
            f"{self.file} {what}; this is {self._library.text} on {self.card.about}: an engine is"
            " for the cards and the version that it was built for, `minicpmo engines build` makes"
            " it anew"
        )

    def _tensors(self) -> list[Tensor]:
        engine, module = self._engine, self._module
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return [
            Tensor(
                name,
                np.dtype(module.nptype(engine.get_tensor_dtype(name))),
                tuple(engine.get_tensor_shape(name)),
                engine.get_tensor_mode(name) == module.TensorIOMode.INPUT,
            )
            for name in names
        ]

    @property
    def _profiles(self) -> int:
        return int(self._engine.num_optimization_profiles)

    def _range(self, profile: int) -> dict[str, tuple[Shape, Shape]]:
        """Smallest and largest shape of each input."""
        found = {}
        for tensor in self.inputs:
            if -1 in tensor.shape:
                least, _, most = self._engine.get_tensor_profile_shape(tensor.name, profile)
                found[tensor.name] = tuple(least), tuple(most)
            else:
                found[tensor.name] = tensor.shape, tensor.shape
        return found

    def _created(self, eager: bool) -> Any:
        """A context that computes in the card's scratch memory."""
        module, engine = self._module, self._engine
        in_scratch = module.ExecutionContextAllocationStrategy.USER_MANAGED
        if hasattr(engine, "create_runtime_config"):
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(in_scratch)
            if hasattr(module, "DynamicShapesKernelSpecializationStrategy"):
                # Kernels for exactly these shapes: at once for a graph, which keeps those it was
                # captured with, else in the background.
                kinds = module.DynamicShapesKernelSpecializationStrategy
                strategy = kinds.EAGER if eager else kinds.LAZY
                config.dynamic_shapes_kernel_specialization_strategy = strategy
            self._kernels.give(config)
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(in_scratch)
        if context is None:
            raise self._error(f"cannot be run: {words(self._library.log.taken())}")
        return context


class Execution:
    """A context and what it was last told, so that it is told only what is new."""

    def __init__(self, engine: Engine, context: Any) -> None:
        self._engine = engine
        self._context = context
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)

    def outputs(self, shapes: Shapes) -> dict[str, Shape]:
        """Shapes of the outputs for these of all inputs."""
        self._set_shapes(shapes)
        return {
            tensor.name: tuple(self._context.get_tensor_shape(tensor.name))
            for tensor in self._engine.outputs
        }

    def run(self, shapes: Shapes, addresses: Mapping[str, int]) -> None:
        """Put it on the stream. addresses: of all inputs and outputs, on the card."""
        self._set_shapes(shapes)
        for name, address in addresses.items():
            if self._addresses.get(name) != address:
                self._context.set_tensor_address(name, address)
                self._addresses[name] = address
        scratch = self._engine.card.scratch
        if self._scratch != (scratch.address, scratch.nbytes):
            self._context.set_device_memory(scratch.address, scratch.nbytes)
            self._scratch = scratch.address, scratch.nbytes
        if not self._context.execute_async_v3(self._engine.card.stream):
            raise self._engine._error(f"failed: {words(self._engine._library.log.taken())}")

    @property
    def can_be_captured(self) -> bool:
        """Whether it may be put into a graph, as far as the library tells."""
        tells = getattr(self._context, "is_stream_capturable", None)
        return True if tells is None else bool(tells(self._engine.card.stream))

    def _set_shapes(self, shapes: Shapes) -> None:
        for name, shape in shapes.items():
            if self._shapes.get(name) != shape:
                if not self._context.set_input_shape(name, shape):
                    reason = words(self._engine._library.log.taken())
                    raise self._engine._error(f"does not take {name} {list(shape)}: {reason}")
                self._shapes[name] = shape


def _within(shape: Shape, least: Shape, most: Shape) -> bool:
    return len(shape) == len(least) and all(
        low <= size <= high for size, low, high in zip(shape, least, most, strict=True)
    )

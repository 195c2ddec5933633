"""Where onnxruntime's stages run and their caches lie: an NVIDIA card, or main memory, where all
but the card itself can be tried."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.ort import device_rows
from minicpmo_ros.runtime.ort.onnx_bytes import FLOAT, FLOAT16
from minicpmo_ros.runtime.ort.stages import CPU, library, reason, session
from minicpmo_ros.runtime.stages import Array

CUDA = "CUDAExecutionProvider"
INSTALL = (
    "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]>=1.22'"
    " 'cuda-bindings<14'; or take 'device: cpu', or a recipe with another runtime"
)
_ELEMENTS = {np.dtype(np.float32): FLOAT, np.dtype(np.float16): FLOAT16}


class Device:
    """A place with memory, and the small graphs that work on caches there.

    Args:
        name: "cpu", "cuda" or "cuda:N", as in a recipe.
        threads: see `stages.session`.

    Raises:
        EngineError: onnxruntime has no provider for it, or there is no such card.
    """

    def __init__(self, name: str, threads: int = 0) -> None:
        self.name = name
        self.kind, _, index = name.partition(":")
        self.index = int(index or 0)
        self._threads = threads
        self._runtime = library()
        self._graphs: dict[tuple[Any, ...], Any] = {}
        self._providers = [_cuda(self.index), CPU] if self.kind == "cuda" else [CPU]
        self._shrinking = self._runtime.RunOptions()
        where = f"{'gpu' if self.kind == 'cuda' else 'cpu'}:{self.index}"
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", where)
        if self.kind == "cuda":
            self._check_card()

    def session(self, file: Any) -> Any:
        """A session here; see `stages.session`."""
        return session(file, self._threads, providers=self._providers)

    def put(self, array: Array) -> Any:
        """An array here; in main memory it is the same, not a copy."""
        array = np.ascontiguousarray(array)
        return self._runtime.OrtValue.ortvalue_from_numpy(array, self.kind, self.index)

    def run(self, session: Any, binding: Any, options: Any = None) -> None:
        """Run what is bound, and wait for it.

        Raises:
            EngineError: the card has no memory left, or fails.
        """
        try:
            binding.synchronize_inputs()
            session.run_with_iobinding(binding, options)
            binding.synchronize_outputs()
        except Exception as error:  # onnxruntime's errors have no class in common
            raise self.failed(error) from None

    def failed(self, error: Exception) -> EngineError:
        """What to raise where onnxruntime raised while it ran."""
        return EngineError(
            f"onnxruntime failed on {self.name}: {reason(error)}; if its memory is full, take a"
            " smaller kv_capacity, or fewer bits"
        )

    def bind_here(self, binding: Any, output: str) -> None:
        """Have an output made here, in memory that onnxruntime takes for it."""
        binding.bind_output(output, self.kind, self.index)

    def writer(self, caches: int, dtype: np.dtype[Any]) -> Any:
        """A session of `device_rows.writer`; one for all who ask for the same."""
        return self._graph(device_rows.writer, caches, _ELEMENTS[dtype])

    def move(
        self,
        cache: Any,
        taken: NDArray[np.int64],
        to: int,
        dtype: np.dtype[Any],
        turn: tuple[Array, Array] | None = None,
    ) -> None:
        """Rows of a cache to rows from `to` on; turn: cosine and sine, float32 [N, head_dim / 2],
        for keys."""
        session = self._graph(device_rows.mover, _ELEMENTS[dtype], turn is not None)
        binding = session.io_binding()
        binding.bind_ortvalue_input("cache", cache)
        binding.bind_ortvalue_output("out", cache)
        binding.bind_cpu_input("taken", taken)
        binding.bind_cpu_input("numbers", numbers(to, len(taken)))
        if turn is not None:
            binding.bind_cpu_input("cos", np.ascontiguousarray(turn[0]))
            binding.bind_cpu_input("sin", np.ascontiguousarray(turn[1]))
        self.run(session, binding)

    def grown(self, cache: Any, more: int, dtype: np.dtype[Any]) -> Any:
        """A cache with so many more rows of zeros, in new memory."""
        session = self._graph(device_rows.grower, _ELEMENTS[dtype])
        binding = session.io_binding()
        binding.bind_ortvalue_input("cache", cache)
        binding.bind_cpu_input("pads", np.array([0, 0, 0, 0, more, 0], np.int64))
        self.bind_here(binding, "out")
        # What was let go of before is not kept for the next: they grow but once.
        self.run(session, binding, self._shrinking)
        return binding.get_outputs()[0]

    def _graph(self, make: Any, *how: Any) -> Any:
        key = make, *how
        if key not in self._graphs:
            self._graphs[key] = self.session(make(*how))
        return self._graphs[key]

    def _check_card(self) -> None:
        """That onnxruntime, which goes on without a card where it finds none, does have it."""
        version = self._runtime.__version__
        if CUDA not in self._runtime.get_available_providers():
            raise EngineError(
                f"the onnxruntime that is installed ({version}) is not for NVIDIA cards: {INSTALL}"
            )
        said = io.StringIO()
        with contextlib.redirect_stdout(said):  # of libraries from pip that are not there
            self._runtime.preload_dlls()
        lines = said.getvalue().splitlines()
        try:
            probe = self._graph(device_rows.grower, FLOAT)
        except EngineError as error:
            raise EngineError(f"{self.name} cannot be used: {error}") from None
        if CUDA not in probe.get_providers():
            why = f" ({lines[0]})" if lines else ""
            raise EngineError(
                f"onnxruntime {version} cannot use {self.name}{why}: it needs a card, its driver,"
                f" and CUDA and cuDNN of the versions that it was built for; {INSTALL}"
            )


def numbers(start: int, count: int) -> NDArray[np.int64]:
    """Rows from one on, as graphs of `device_rows` take them: [1, count, 1]."""
    return np.arange(start, start + count)[None, :, None]


def _cuda(index: int) -> tuple[str, dict[str, str]]:
    """The provider for a card, and how it is to behave there."""
    return CUDA, {
        "device_id": str(index),
        # Grow by what is asked for, not by doubling: several sessions share the card.
        "arena_extend_strategy": "kSameAsRequested",
        # Trying all kernels for each new size of a picture takes seconds.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }

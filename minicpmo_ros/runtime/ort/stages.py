"""Stages in onnxruntime on a CPU, from the files that `runtime.export` wrote. No torch.

Inputs are handed to onnxruntime as they lie in memory, so a cache is read where it is, and only the
rows of what is new are written. On a card: `runtime.ort.device_stages`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.engines.host_memory import give_back
from minicpmo_ros.runtime.kv import KvRows
from minicpmo_ros.runtime.stages import Array

# It would make a product and the sum behind it one, and quantised weights of such a product are not
# kept packed: of each layer, those of o_proj and down_proj.
DISABLED = ("MatMulAddFusion",)
CPU = "CPUExecutionProvider"
# Values of an input that make a run a large one: a picture has more, a hidden state fewer.
LARGE = 100_000
_shares_memory = False


def session(
    file: Path | bytes,
    threads: int = 0,
    save: Path | None = None,
    providers: Sequence[Any] = (CPU,),
    repair: str = "",
) -> Any:
    """An onnxruntime session, on the CPU if nothing else is said.

    Args:
        file: or its content.
        threads: 0: one a core. They sleep while they wait: a robot has other work for its cores.
        save: where to write the graph as it is run, to look at.
        providers: as onnxruntime takes them, the one to be preferred first.
        repair: what to do about a file that is not whole, for one that is not of the engine cache.

    Raises:
        EngineError: onnxruntime is missing or too old, or the file is not whole.
    """
    runtime = library()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Products with quantised weights round their inputs to eight bits: twice as fast.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
    # What is computed on the way is taken from one store for all sessions: they run in turn.
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = 3
    if save is not None:
        options.optimized_model_filepath = str(save)
    try:
        loaded = runtime.InferenceSession(
            file,
            options,
            providers=list(providers),
            disabled_optimizers=list(DISABLED),
            enable_fallback=0,  # to the CPU, with a line on standard output
        )
    except Exception as error:
        said = f"onnxruntime {runtime.__version__} cannot load"
        if isinstance(file, bytes):
            raise EngineError(f"{said} a graph: {reason(error)}") from None
        repair = repair or (
            "if `minicpmo engines list --verify` says that it is damaged, remove it with"
            f" `minicpmo engines clean {file.parent.name}` and build it again"
        )
        raise EngineError(f"{said} {file}: {reason(error)}; {repair}") from None
    # Weights as they were before they were packed: as much again as the weights themselves.
    give_back()
    return loaded


def reason(error: Exception) -> str:
    """What an error of onnxruntime says, without where in its code."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@functools.cache
def _options(large: bool) -> Any:
    """How to run: what a picture or a prompt takes on the way, some hundred MB, is given back
    behind it; what a token takes is kept for the next."""
    options = library().RunOptions()
    if large:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


class OrtStage:
    """See `runtime.stages.Stage`."""

    def __init__(self, file: Path, threads: int = 0) -> None:
        self._session = session(file, threads)

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        large = max(array.size for array in feed.values()) > LARGE
        found: list[Array] = self._session.run(None, dict(feed), _options(large))
        return found


class OrtCachedStage:
    """See `runtime.stages.CachedStage`.

    Args:
        files: in their order, and how many layers are in each.
        kv_heads, head_dim, rope_theta: of the caches; see `runtime.kv.KvRows`.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, int]],
        kv_heads: int,
        head_dim: int,
        rope_theta: float,
        threads: int = 0,
    ) -> None:
        self._parts = [_Part(session(file, threads), layers) for file, layers in files]
        self._sizes = kv_heads, head_dim, rope_theta

    def cache(self, capacity: int) -> KvRows:
        kv_heads, head_dim, rope_theta = self._sizes
        layers = sum(len(part.caches) for part in self._parts) // 2
        return KvRows(layers, kv_heads, capacity, head_dim, rope_theta)

    def step(self, feed: Mapping[str, Array], cache: KvRows, at: int, rows: int) -> Array:
        cache.reserve(at + rows)
        past = {"past": np.array([at], np.int64)}
        options = _options(rows > 1)
        given, first = dict(feed), 0
        found: Array | None = None
        for part in self._parts:
            if found is not None:
                given = {part.takes: found}
            stop = first + len(part.caches)
            caches = zip(part.caches, cache.buffers[first:stop], strict=True)
            found, *new = part.session.run(None, {**given, **past, **dict(caches)}, options)
            cache.put(first, new, at)
            first = stop
        cache.length = max(cache.length, at + rows)
        assert found is not None
        return found


class _Part:
    """One file of several. takes: its first input. caches: the names of those that are caches."""

    def __init__(self, session: Any, layers: int) -> None:
        self.session = session
        self.takes: str = session.get_inputs()[0].name
        self.caches = [f"cache.{index}" for index in range(2 * layers)]


class OrtLoader:
    """Stages of files that have their place in the cache.

    Raises:
        EngineError: onnxruntime is missing or too old.
    """

    def __init__(self, threads: int = 0) -> None:
        library()
        self._threads = threads

    def stage(self, file: Path) -> OrtStage:
        return OrtStage(file, self._threads)

    def cached(
        self, files: Sequence[tuple[Path, int]], sizes: tuple[int, int, float]
    ) -> OrtCachedStage:
        return OrtCachedStage(files, *sizes, self._threads)


def library() -> Any:
    """onnxruntime; raises EngineError where it is missing or too old."""
    global _shares_memory
    try:
        import onnxruntime
    except ImportError:
        raise EngineError("onnxruntime is not installed: pip install 'onnxruntime>=1.22'") from None
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if version < (1, 22):
        raise EngineError(
            f"onnxruntime {onnxruntime.__version__} does not keep eight-bit weights packed;"
            " 1.22 or later is needed: pip install 'onnxruntime>=1.22'"
        )
    if not _shares_memory:
        where = onnxruntime.OrtMemoryInfo(
            "Cpu",
            onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
            0,
            onnxruntime.OrtMemType.DEFAULT,
        )
        # Grow by what is asked for, not by doubling.
        as_asked = onnxruntime.OrtArenaCfg(
            {"arena_extend_strategy": 1, "initial_chunk_size_bytes": -1, "max_mem": 0}
        )
        onnxruntime.create_and_register_allocator(where, as_asked)
        _shares_memory = True
    return onnxruntime

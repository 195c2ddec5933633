"""An ONNX file of `runtime.export` to an engine file, which is there whole or not at all.

TensorRT-RTX needs no card or driver for it, and builds for the cards one names. TensorRT builds for
the card that it runs on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minicpmo_ros.errors import EngineError
from minicpmo_ros.runtime.engines.disk import HOW_TO_MAKE_ROOM, bytes_text, free_bytes, is_full
from minicpmo_ros.runtime.trt.library import Library, words
from minicpmo_ros.runtime.trt.profiles import Profile, sizes
from minicpmo_ros.runtime.trt.progress import Progress, Watch
from minicpmo_ros.runtime.trt.timing import TimingCache

# What an engine holds beside weights: code, for all targets, which does not grow with the network.
CODE_BYTES = 16_000_000


@dataclass(frozen=True)
class Built:
    """What a build made. nbytes: of the engine file. seconds: that it took."""

    nbytes: int
    seconds: float


def build(
    library: Library,
    onnx_file: Path,
    engine_file: Path,
    profiles: Sequence[Profile],
    *,
    targets: Sequence[str] = (),
    timing_cache: Path | None = None,
    workspace: int | None = None,
    exact: bool = False,
    progress: Progress = lambda share: None,
) -> Built:
    """Make an engine. Weights in a file beside the graph are read from there.

    Args:
        profiles: see `trt.profiles`.
        targets: cards by name, sm86 or sm120; none: with TensorRT-RTX its own choice, else this
            machine's.
        timing_cache: file shared by builds; where building measures nothing it is left alone.
        workspace: bytes of the card that a kernel may ask for at most; None: all of it.
        exact: products of single precision are of single precision, not of TF32, which has ten bits
            of a number.

    Raises:
        EngineError: the file cannot be parsed or built; the disk is full.
        Whatever `progress` raises, and KeyboardInterrupt: the build was stopped, nothing is left.
    """
    began = time.monotonic()
    module = library.module
    library.log.taken()
    builder = module.Builder(library.log)
    network = builder.create_network(_strongly_typed(module))
    parser = module.OnnxParser(network, library.log)
    _parse(library, parser, onnx_file)
    config = builder.create_builder_config()
    _set_targets(library, config, targets)
    if workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace)
    if exact:
        config.clear_flag(module.BuilderFlag.TF32)
    if hasattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # Memory that an engine takes by itself while it runs could not be in a CUDA graph.
        config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    for profile in profiles:
        config.add_optimization_profile(_profile(builder, network, profile))
    timing = TimingCache(library, timing_cache)
    timing.attach(config)
    watch = Watch(module, progress)
    config.progress_monitor = watch.monitor
    with watch.interruptible():
        plan = builder.build_serialized_network(network, config)
    watch.check()
    if plan is None:
        raise EngineError(
            f"{library.text} cannot build {onnx_file.name}{_for(targets)}:"
            f" {words(library.log.taken())}"
        )
    _write(engine_file, plan)
    timing.save(config)
    progress(1.0)
    return Built(engine_file.stat().st_size, time.monotonic() - began)


def assert_packed(onnx_file: Path, engine_file: Path) -> None:
    """That the weights of an engine take no more than those beside the ONNX file do.

    Unpacked, four bits become sixteen: at sizes where weights outweigh CODE_BYTES that shows in the
    file's size, with no card to look into it.

    Raises:
        EngineError: the engine is too large for weights that were kept as they are.
    """
    weights = onnx_file.with_suffix(".bin").stat().st_size
    engine = engine_file.stat().st_size
    if engine > 1.25 * weights + CODE_BYTES:
        raise EngineError(
            f"{engine_file.name} has {bytes_text(engine)} for {bytes_text(weights)} of weights:"
            " TensorRT did not keep them packed"
        )


def _strongly_typed(module: Any) -> int:
    """Each tensor has the type that the graph gives it; what later versions do unasked."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(library: Library, parser: Any, file: Path) -> None:
    if not file.is_file():
        raise EngineError(f"{file} is not there; `minicpmo engines build` writes it")
    if parser.parse_from_file(str(file)):
        return
    found = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
    logged = library.log.taken()
    raise EngineError(f"{library.text} cannot parse {file}: {words(found or logged)}")


def _parser_error(error: Any) -> str:
    if not hasattr(error, "node_name"):
        return f"node {error.node()}: {error.desc()}"
    if not error.node_name():
        return str(error.desc())
    return f"node {error.node_name()} ({error.node_operator()}): {error.desc()}"


def _set_targets(library: Library, config: Any, targets: Sequence[str]) -> None:
    known = library.targets()
    unknown = [target for target in targets if target not in known]
    if unknown:
        may = ", ".join(known) or "only for the card of the machine it runs on: name no targets"
        raise EngineError(f"{library.text} does not build for {', '.join(unknown)}; it can: {may}")
    if targets:
        config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        capability = library.module.ComputeCapability.__members__[target.upper()]
        config.set_compute_capability(capability, index)


def _profile(builder: Any, network: Any, profile: Profile) -> Any:
    made = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 not in tuple(tensor.shape):
            continue
        ranges = [
            sizes(tensor.name, tensor.get_dimension_name(axis), size, profile)
            for axis, size in enumerate(tensor.shape)
        ]
        made.set_shape(tensor.name, *(tuple(one[which] for one in ranges) for which in range(3)))
    return made


def _for(targets: Sequence[str]) -> str:
    return f" for {', '.join(targets)}" if targets else ""


def _write(file: Path, plan: Any) -> None:
    """Under another name first: what is cut off is never taken for an engine."""
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") as out:
            out.write(plan)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except OSError as error:
        free = bytes_text(free_bytes(file.parent))
        why = f"{free} are free; {HOW_TO_MAKE_ROOM}" if is_full(error) else error.strerror
        raise EngineError(
            f"{file} cannot be written, it needs {bytes_text(plan.nbytes)}: {why}"
        ) from error
    finally:
        part.unlink(missing_ok=True)

"""Building what a recipe asks for: graphs and tables from a checkpoint, engines from graphs.

Every file goes into the cache as soon as it is whole, so that a build that was cut off goes on
where it stopped. Needs torch and the extra 'export'; running what was built needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from minicpmo_ros.runtime.export.calibration import Calibration

from minicpmo_ros.errors import EngineError
from minicpmo_ros.model.config import ModelConfig
from minicpmo_ros.model.vocoder import VocoderConfig
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.cache_entry import EngineKey
from minicpmo_ros.runtime.engines.pieces import GRAPH_FILE, Piece, Sizes
from minicpmo_ros.runtime.engines.planning import build_memory

Progress = Callable[[str, float], None]
"""Called with what is being built, and the share of all that is done."""
Say = Callable[[str], None]
Read = Callable[[str], np.ndarray]
"""Gives the float32 values of a checkpoint's parameter, by its name."""


Advance = Callable[[float], None]
"""Called with the share of one job that is done."""


@dataclass(frozen=True)
class Job:
    """One entry of the cache that may have to be built.

    make: writes its files into a folder, telling the share that is done. nbytes: about what they
    take. weight: its share of the work. memory: bytes that making it takes; 0: not known.
    """

    key: EngineKey
    make: Callable[[Path, Advance], None]
    nbytes: int
    weight: float
    memory: int = 0


def run(
    jobs: list[Job],
    cache: EngineCache,
    source: Path,
    progress: Progress = lambda what, share: None,
    say: Say = lambda text: None,
    check: Callable[[Job], None] = lambda job: None,
) -> list[Path]:
    """Build what is not there; the folders of all, in their order.

    check: raises EngineError where one would not fit into memory; called just before it is made,
    when what others were building is built.

    Raises:
        EngineError, CheckpointError: see `EngineCache.ensure` and the jobs.
    """
    missing = {job.key.name for job in jobs if not _is_there(cache, job.key)}
    total = sum(job.weight for job in jobs if job.key.name in missing) or 1.0
    done = 0.0
    folders = []
    for job in jobs:

        def advance(share: float, job: Job = job, done: float = done) -> None:
            # What makes files counts weights as it writes them, which may be more than it read.
            progress(job.key.stage, (done + min(share, 1.0) * job.weight) / total)

        def make(folder: Path, job: Job = job, advance: Callable[[float], None] = advance) -> None:
            check(job)
            advance(0.0)
            job.make(folder, advance)

        folders.append(cache.ensure(job.key, make, say, nbytes=job.nbytes, source=source))
        if job.key.name in missing:
            done += job.weight
            progress(job.key.stage, done / total)
    return folders


def graph_job(
    directory: Path,
    fingerprint: str,
    config: ModelConfig,
    piece: Piece,
    calibration: Path | None = None,
) -> Job:
    """A piece's graph, or its tables. calibration: file with the scales of its weights, if the
    piece is scaled."""
    return Job(
        piece.key(fingerprint),
        lambda folder, advance: make_piece(directory, piece, folder, advance, calibration),
        piece.nbytes(config),
        float(piece.parameters(config) or 1),
        build_memory(piece, config),
    )


def make_piece(
    directory: Path,
    piece: Piece,
    folder: Path,
    advance: Callable[[float], None] = lambda share: None,
    calibration: Path | None = None,
) -> None:
    """Write the files of a piece of a checkpoint into a folder.

    Raises:
        EngineError: torch or the extra 'export' is missing.
        CheckpointError: see `model.checkpoint.Checkpoint`.
    """
    check_extras()
    from minicpmo_ros.model.checkpoint import Checkpoint
    from minicpmo_ros.runtime.export.calibration import Calibration

    checkpoint = Checkpoint(directory)
    config = checkpoint.config  # with as many layers as there are weights of
    scales = None
    if piece.calibration:
        assert calibration is not None
        scales = Calibration.load(calibration)
        scales.check_fits(config.llm)
    write_piece(lambda name: checkpoint.read(name).numpy(), config, piece, folder, advance, scales)


def check_extras() -> None:
    """Import what writes graphs; raises EngineError where it is missing."""
    with extras("building"):
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401

        from minicpmo_ros.model.checkpoint import Checkpoint  # noqa: F401
        from minicpmo_ros.runtime.export.calibration import Calibration  # noqa: F401


@contextmanager
def extras(what: str) -> Iterator[None]:
    """Around imports: raises EngineError where one is missing, and says what needs it."""
    try:
        yield
    except ImportError as error:
        raise EngineError(
            f"{what} needs the extras 'model' and 'export' ({error}):"
            " pip install 'minicpmo_ros[model,export]', or build on another machine and set"
            " MINICPMO_ENGINES to a copy of its folder"
        ) from None


def write_piece(
    read: Read,
    config: Sizes,
    piece: Piece,
    folder: Path,
    advance: Callable[[float], None] = lambda share: None,
    scales: Calibration | None = None,
) -> None:
    """The same from whatever gives a checkpoint's weights by name, scaled or not."""
    from minicpmo_ros.runtime.export import plans
    from minicpmo_ros.runtime.export.writer import export

    if isinstance(config, VocoderConfig) and piece.is_table:
        from minicpmo_ros.runtime.export.vocoder_weights import write_tables

        write_tables(read, config, folder)
        return
    if piece.is_table:
        _write_tables(piece, read, folder, advance)
        return
    total = piece.parameters(config)
    done = 0

    def written(count: int) -> None:
        nonlocal done
        done += count
        advance(done / total)

    plan = plans.plan(piece, config)
    file = folder / GRAPH_FILE
    if scales is None:
        export(plan, plans.weights(piece, config, read), file, written)
    else:
        importance = plans.named(piece, scales.importance)
        export(plan, plans.weights(piece, config, scales.scaled(read)), file, written, importance)


# The linear layers of `staged.Voicing`, by their names in a checkpoint.
PROJECTOR = {
    "w1": "linear1.weight",
    "b1": "linear1.bias",
    "w2": "linear2.weight",
    "b2": "linear2.bias",
}


def _write_tables(
    piece: Piece,
    read: Read,
    folder: Path,
    advance: Callable[[float], None],
) -> None:
    from minicpmo_ros.runtime.tables import write_table

    if piece.part == "llm":
        write_table(folder, "tokens", read("llm.model.embed_tokens.weight"), piece.precision)
        return
    write_table(folder, "text", read("tts.emb_text.weight"), piece.precision)
    advance(0.8)
    write_table(folder, "codes", read("tts.emb_code.0.weight"), piece.precision)
    found = {name: read(f"tts.projector_semantic.{key}") for name, key in PROJECTOR.items()}
    np.savez(folder / "projector.npz", **found)  # type: ignore[arg-type]


def _is_there(cache: EngineCache, key: EngineKey) -> bool:
    try:
        return cache.find(key) is not None
    except EngineError:
        return False

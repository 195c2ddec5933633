"""`minicpmo engines check`: what was built held against torch, and what rounding costs."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from minicpmo_ros.errors import ConfigError, EngineError
from minicpmo_ros.model.vocoder import ASSETS, FLOW, assets_of
from minicpmo_ros.runtime import load, vocoder_load
from minicpmo_ros.runtime.engines.build import Progress, extras
from minicpmo_ros.runtime.engines.cache import EngineCache
from minicpmo_ros.runtime.engines.check_room import check_checking_memory
from minicpmo_ros.runtime.engines.commands import (
    Sequences,
    checkpoint_fingerprint,
    progress_bar,
    recipe_to_build,
    wide_console,
)
from minicpmo_ros.runtime.engines.host_memory import available_bytes
from minicpmo_ros.runtime.engines.pieces import Piece, pieces, vocoder_pieces
from minicpmo_ros.runtime.engines.recipe import Recipe
from minicpmo_ros.runtime.jobs import calibration_of

if TYPE_CHECKING:
    from minicpmo_ros.runtime.engines.check import Checked
    from minicpmo_ros.runtime.engines.check_feeds import Recorded
    from minicpmo_ros.runtime.export.calibration import Calibration
    from minicpmo_ros.runtime.export.error_report import ErrorReport

Recordings = Callable[[], "list[Recorded]"]
"""Reads the recordings that are to be the input."""


def check(
    directory: Path,
    name: str,
    sequences: Sequences | None = None,
    *,
    recordings: Recordings | None = None,
    json_file: Path | None = None,
) -> bool:
    """Hold each built file against torch, and print the differences.

    Where there is no card for a recipe that needs one, nothing is built or run: torch alone shows
    what rounding costs, and what half precision cannot hold. That is said.

    Args:
        sequences: also report what rounding costs in these conversations.
        recordings: what the files are given; None: noise.
        json_file: where to write every figure.

    Returns:
        Whether all are what their precision explains, and all values fit.

    Raises:
        ConfigError: there is no folder for the json file, or conversations or recordings are given
            where the vocoder alone is built.
        EngineError: something cannot be built or loaded here, or is damaged; or there is not enough
            memory, which is asked for first.
    """
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: there is no directory {json_file.parent}")
    wanted = recipe_to_build(name, directory)
    if wanted.runtimes == {"torch"} and (sequences is not None or recordings is not None):
        raise ConfigError(
            f"--report and --bag have no effect: of the recipe '{wanted.name}' the vocoder alone is"
            " built, which is checked with noise; leave them out"
        )
    not_run = _why_not_run(directory, wanted)
    with extras("checking"):
        from minicpmo_ros.runtime.engines.check import LARGEST_HALF

    console = wide_console()
    with progress_bar() as progress:
        check_all = _Check(directory, wanted, progress, console.print, runs=not not_run)
        found = check_all.run(recordings)
        report = check_all.report(sequences) if sequences is not None else None
    console.print(_table(found))
    console.print(
        "errors against float32, as shares: of the runtime alone, and with what rounding weights"
        f" costs; largest: of all values, half precision ends at {LARGEST_HALF:.0f}; !: too large"
    )
    console.print(f"input: {check_all.about_input}")
    if not_run:
        console.print(f"WHAT IS BUILT FOR {wanted.name} WAS NOT RUN, torch alone was: {not_run}")
    if report is not None:
        _print_report(report, console)
    if json_file is not None:
        content = {
            "checkpoint": str(directory),
            "recipe": wanted.name,
            "input": check_all.about_input,
            "ran": not not_run,
            "not_run_because": not_run,
            "files": [_figures(one) for one in found],
            "report": None if report is None else asdict(report),
        }
        json_file.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")
        console.print(f"every figure: {json_file}")
    return all(one.expected for one in found)


def _why_not_run(directory: Path, wanted: Recipe) -> str:
    """Why what runs on a card cannot be run here; "" where it can. Raises EngineError for what runs
    on a CPU: that is to be installed."""
    names = set(wanted.runtimes)
    if assets_of(directory) is not None:
        names.add(wanted.vocoder.runtime)
    why = ""
    for name in sorted(names - {"torch"}):
        try:
            load.runtime(name, device=wanted.device)
        except EngineError as error:
            if not wanted.on_card(name):
                raise
            why = why or str(error)
    return why


class _Check:
    """One check: what is needed is made, and the files come one after the other.

    runs: whether what was built is run. about_input: what the files are given, in words.
    """

    def __init__(
        self,
        directory: Path,
        wanted: Recipe,
        progress: Progress,
        say: Callable[[str], None],
        *,
        runs: bool,
    ) -> None:
        from minicpmo_ros.model.checkpoint import Checkpoint

        self._directory, self._wanted = directory, wanted
        self._progress, self._say, self._runs = progress, say, runs
        self._checkpoint = Checkpoint(directory)
        self._cache = EngineCache()
        self._calibration: Calibration | None = None
        if wanted.scaling == "awq":
            mark = checkpoint_fingerprint(directory, self._cache, progress)
            self._calibration = calibration_of(self._cache, mark)
        self.about_input = "noise"

    def run(self, recordings: Recordings | None) -> list[Checked]:
        """Every file, checked."""
        files, spoken = self._files()
        recorded = self._recorded(recordings) if recordings is not None else []
        count = sum(not piece.is_table for piece in (*files, *spoken))
        found = []
        both = itertools.chain(self._network(files, recorded), self._vocoder(spoken))
        for number, one in enumerate(both, start=1):
            self._progress(f"checked {one.piece.name}", number / count)
            found.append(one)
        return found

    def report(self, sequences: Sequences) -> ErrorReport:
        """What rounding as the recipe has it costs, and without its scales."""
        from minicpmo_ros.model.tokenizer import Tokenizer
        from minicpmo_ros.runtime.export.error_report import Rounding, error_report

        llm, checkpoint = self._wanted.llm, self._checkpoint
        control = Tokenizer(self._directory, checkpoint.config.llm.vocab).control
        title = f"{llm.precision}, head {llm.head}"
        roundings = [Rounding.of(title, llm)]
        if self._calibration is not None:
            roundings.insert(0, Rounding.of(f"{title}, awq", llm, self._calibration))
        self._progress("reading what it would hear and see", 0.0)
        return error_report(
            checkpoint,
            sequences(),
            roundings,
            listen=control.listen,
            speak=control.speak,
            progress=lambda done, of: self._progress("what rounding costs", done / of),
        )

    def _files(self) -> tuple[dict[Piece, Path], dict[Piece, Path]]:
        """Of the network and of the vocoder; places where nothing is, if nothing is to be run."""
        wanted, directory = self._wanted, self._directory
        config = self._checkpoint.config
        in_torch = wanted.runtimes == {"torch"}
        if not in_torch:
            check_checking_memory(pieces(config, wanted), config, available_bytes())
        if self._runs:
            made = directory, wanted, self._cache, self._progress, self._say
            return {} if in_torch else load.ensure(*made), vocoder_load.ensure_vocoder(*made)
        scales = ""
        if self._calibration is not None:
            scales = "known"  # a digest is part of names that nobody looks for here
        spoken: list[Piece] = []
        if assets_of(directory) is not None and wanted.vocoder.runtime != "torch":
            spoken = vocoder_pieces(wanted)
        files = [] if in_torch else pieces(config, wanted, scales)
        return dict.fromkeys(files, Path()), dict.fromkeys(spoken, Path())

    def _recorded(self, recordings: Recordings) -> list[Recorded]:
        from minicpmo_ros.runtime.engines.check_feeds import SLICES, TOKENS

        self._progress("reading what it would hear and see", 0.0)
        found = recordings()
        self.about_input = (
            f"of each of {len(found)} recordings, at most {SLICES} slices of pictures, the sound"
            f" that the encoder remembers and {TOKENS} tokens; for speech and vocoder noise"
        )
        return found

    def _network(self, files: dict[Piece, Path], recorded: list[Recorded]) -> Iterator[Checked]:
        """See `check.check`; nothing where there are no files."""
        if not files:
            return
        from minicpmo_ros.runtime.engines.check import check
        from minicpmo_ros.runtime.engines.check_feeds import Feeds

        wanted, checkpoint = self._wanted, self._checkpoint
        yield from check(
            checkpoint.config,
            lambda name: checkpoint.read(name).numpy(),
            self._loader(checkpoint.config, files),
            self._calibration,
            feeds=Feeds(checkpoint.config, recorded, wanted.llm.prefill, wanted.kv_capacity),
            runs_built=self._runs,
        )

    def _vocoder(self, files: dict[Piece, Path]) -> Iterator[Checked]:
        """See `check.check_vocoder`; nothing where there are no files."""
        if not files:
            return
        from minicpmo_ros.runtime.engines.check import check_vocoder
        from minicpmo_ros.runtime.export.vocoder_weights import read_assets, read_config

        assets = self._directory / ASSETS
        config = read_config(assets)
        check_checking_memory(files, config, available_bytes())
        flow, hift = (read_assets(assets, part) for part in ("flow", "hift"))
        yield from check_vocoder(
            config,
            lambda name: flow(name) if name.startswith(FLOW) else hift(name),
            self._loader(config, files),
            runs_built=self._runs,
        )

    def _loader(self, sizes: Any, files: dict[Piece, Path]) -> load.Loader:
        wanted = self._wanted
        return load.Loader(sizes, files, wanted.threads, lambda what, share: None, wanted.device)


def _table(found: list[Checked]) -> Table:
    table = Table("part", "runs on", "precision", "runtime", "with rounding", "keys", "largest")
    for column in table.columns[3:]:
        column.justify = "right"
    for one in found:
        far = one.ran and not one.runtime <= one.limit
        table.add_row(
            one.piece.name,
            one.piece.runtime,
            one.piece.precision,
            f"{one.runtime:.1e}{' !' * far}" if one.ran else "not run",
            f"{one.whole:.1e}",
            f"{one.rows:.1e}{' !' * (not one.rows <= one.limit)}" if one.ran else "not run",
            f"{one.largest:.3g}{'' if one.fits else ' !'}",
        )
    return table


def _print_report(report: ErrorReport, console: Console) -> None:
    from minicpmo_ros.runtime.export.error_report import error_table, layer_table

    console.print(error_table(report))
    console.print(layer_table(report))


def _figures(one: Checked) -> dict[str, Any]:
    """For the json file: null where nothing was run."""
    return {
        "name": one.piece.name,
        "runs_on": one.piece.runtime,
        "precision": one.piece.precision,
        "dtype": one.piece.dtype,
        "layers": one.layers,
        "runtime": one.runtime if one.ran else None,
        "keys": one.rows if one.ran else None,
        "limit": one.limit,
        "with_rounding": one.whole,
        "largest": one.largest,
        "fits": one.fits,
        "expected": one.expected,
    }


def _plain(value: Any) -> Any:
    """Of a json file: numbers that it does not have are words there, "nan" and "inf"."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

"""`minicpmo parity`: a checkpoint and a golden pair in, a row an entry out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from minicpmo_ros.model.checkpoint import Checkpoint
from minicpmo_ros.model.tokenizer import Tokenizer
from minicpmo_ros.parity.compare import Row, same
from minicpmo_ros.parity.fits import check_fits
from minicpmo_ros.parity.golden import Golden, read_golden
from minicpmo_ros.parity.session import check_session
from minicpmo_ros.parity.stages import Tick, check_stages, stages_work
from minicpmo_ros.replay.progress import progress_bar
from minicpmo_ros.runtime.torch_runtime import TorchNetwork


def run_parity(checkpoint: Path, prefix: Path) -> bool:
    """Compare all entries of a pair, in float32 on the CPU; print the table.

    Returns:
        Whether every entry is equal.

    Raises:
        InputError: the pair is broken, or of another checkpoint.
        CheckpointError: the checkpoint is.
    """
    golden = read_golden(prefix)
    config = Checkpoint(checkpoint).config
    check_fits(golden, config)
    tokenizer = Tokenizer(checkpoint, config.llm.vocab)
    with progress_bar("loading", 1.0) as show:
        network = TorchNetwork.load(checkpoint, progress=lambda what, share: show(share))
    total = stages_work(golden) + sum(session.units for session in golden.sessions)
    with progress_bar("comparing", float(total)) as show:
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            show(float(done))

        rows = list(compare(golden, network, tokenizer, tick))
    return report(golden, rows)


def compare(
    golden: Golden, network: TorchNetwork, tokenizer: Tokenizer, tick: Tick
) -> Iterator[Row]:
    """A row for each entry of the pair: tokens, stages, conversations."""
    yield from check_stages(golden, network, tokenizer, tick)
    for session in golden.sessions:
        yield from check_session(golden, session, network, tokenizer, tick)
    if golden.token_bytes:
        yield check_token_bytes(golden, tokenizer)


def check_token_bytes(golden: Golden, tokenizer: Tokenizer) -> Row:
    """What tokens stand for; control tokens, which stand for nothing here, by their spelling."""
    spelling = {number: name.encode() for name, number in tokenizer.added.items()}
    found = {
        str(token): (spelling.get(token) or tokenizer.bytes_of(token)).hex()
        for token in golden.token_bytes
    }
    expected = {str(token): text.hex() for token, text in golden.token_bytes.items()}
    return same("token_bytes", found, expected, f"{len(expected)} tokens")


def report(golden: Golden, rows: list[Row]) -> bool:
    """Print the rows and what they come to; whether all passed."""
    # Not a rich table: that cuts what is wider than the terminal, or than 80 columns in a pipe.
    console = Console(soft_wrap=True, highlight=False)
    width = max((len(row.entry) for row in rows), default=0)
    console.print(Text(f"{'entry':{width}}  largest error"))
    for row in rows:
        equal = "exact" if row.passed else "not exact"
        error = equal if row.error is None else f"{row.error:.1e}"
        verdict = ("pass", "green") if row.passed else ("FAIL", "bold red")
        line = Text.assemble(f"{row.entry:{width}}  {error:13}  ", verdict, f"  {row.note}")
        line.rstrip()
        console.print(line)
    if unasked := golden.unasked():
        console.print(Text(f"not compared, for nothing lists them: {', '.join(unasked)}"))
    failed = [row.entry for row in rows if not row.passed]
    summary = f"{len(rows) - len(failed)} of {len(rows)} entries are equal"
    console.print(Text(f"{summary}; not equal: {', '.join(failed)}" if failed else summary))
    return bool(rows) and not failed

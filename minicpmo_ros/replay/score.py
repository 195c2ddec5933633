"""What `minicpmo score` does: a bag's scores as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from minicpmo_ros.errors import InputError
from minicpmo_ros.replay.progress import progress_bar
from minicpmo_ros.replay.scores import Panel, Session, pool
from minicpmo_ros.replay.scores.from_bag import session_of_bag
from minicpmo_ros.replay.scores.labels import Labels, read_labels
from minicpmo_ros.replay.scores.panel import LEAST
from minicpmo_ros.replay.scores.turn_bench import conversation_of


def score_bag(
    bag: Path,
    *,
    labels: Path | None = None,
    figures: Path | None = None,
    turns: Path | None = None,
    least: int = LEAST,
) -> Panel:
    """Print the scores; write {"figures": {name: number}} and the turns where wanted.

    Raises `InputError` for a bag or labels that cannot be used, or a file that cannot be written.
    """
    known = read_labels(labels) if labels is not None else Labels()
    with progress_bar("score", None) as progress:
        session = session_of_bag(bag, known, progress)
    panel = pool([session], least=least)
    _print(panel, session, labelled=known.user is not None)
    if figures is not None:
        _write(figures, {"bag": bag.stem, "figures": panel.as_figures()})
    if turns is not None:
        _write(turns, conversation_of(session, bag.stem))
    return panel


def _print(panel: Panel, session: Session, labelled: bool) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{session.duration_s:.1f} s, {len(session.user)} stretches of the person's speech, "
        f"{len(session.agent)} of the robot's, {len(session.alerts)} alerts"
    )
    console.print(panel.table())
    if not labelled:
        console.print("All that was heard counts as said to the robot: --labels says otherwise.")
    if session.events is None:
        console.print("Alerts are not judged: --labels says which events there were.")


def _write(path: Path, content: object) -> None:
    try:
        path.write_text(json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error
    Console(soft_wrap=True, highlight=False).print(f"written to {path}")

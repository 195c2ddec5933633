"""A progress bar for work that takes its time; silent where nobody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[float], None]
"""Called with the seconds of recording that are done."""


def no_progress(done_s: float) -> None:
    """For callers that show none."""


@contextmanager
def progress_bar(title: str, total_s: float | None) -> Iterator[Progress]:
    """A bar on stderr over total_s seconds of recording (None: unknown); gone when it is done.

    It is drawn on a terminal only, so logs and pipes stay clean.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total_s)
        yield lambda done_s: bar.update(task, completed=done_s)

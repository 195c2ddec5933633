"""Where the brain's work is done: at once (replay) or on a thread of its own (a live node)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol

Job = Callable[[], None]


class Worker(Protocol):
    """Runs jobs one after the other, in the order in which they were submitted."""

    def submit(self, job: Job) -> None: ...

    def close(self, timeout_s: float = 10.0) -> bool: ...

    @property
    def waiting(self) -> int: ...


class InlineWorker:
    """Runs a job before `submit` returns: time stands still while the brain thinks."""

    waiting = 0

    def submit(self, job: Job) -> None:
        job()

    def close(self, timeout_s: float = 10.0) -> bool:
        return True


class ThreadWorker:
    """Runs jobs on one thread, so that callbacks never wait for the brain.

    `waiting` counts the jobs not yet finished. A job must catch its own exceptions: one that gets
    out is given to `on_error` and the next job runs.
    """

    def __init__(self, name: str, on_error: Callable[[Exception], None]) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._on_error = on_error
        self._count = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._count

    def submit(self, job: Job) -> None:
        with self._lock:
            self._count += 1
        self._jobs.put(job)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Finish what was submitted; false when the thread is still at work after timeout_s."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:
                self._on_error(error)
            finally:
                with self._lock:
                    self._count -= 1

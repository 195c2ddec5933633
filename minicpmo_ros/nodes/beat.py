"""A thread that calls back at a steady pace, beside the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Beat:
    """Calls callback every period_s seconds until it is stopped.

    A timer of the executor costs about a millisecond each time it is due: rclpy gathers everything
    that the process's nodes offer and waits for it anew. At 50 Hz that was a third of all the
    processor time that the four nodes take, and what came meanwhile had to wait.
    """

    def __init__(self, name: str, period_s: float, callback: Callable[[], None]) -> None:
        """callback must raise nothing, and runs beside the executor's callbacks."""
        self._period_s, self._callback = period_s, callback
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when the last call is over."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._period_s):
            self._callback()

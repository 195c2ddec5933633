"""A thread that reads a device for a node, so that the executor never waits for hardware."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from minicpmo_ros.nodes.diagnostics import text_of

Item = TypeVar("Item")

READ_S = 0.2  # longest wait for one item, and the pause after an error
STOP_S = 2.0  # a driver that holds the thread for longer is left behind


class Reader(Generic[Item]):
    """Calls take(item) for every item that read(timeout_s) gives, until it is stopped.

    What either raises is told to trouble(kind, text); the reading goes on.
    """

    def __init__(
        self,
        kind: str,
        read: Callable[[float], Item | None],
        take: Callable[[Item], None],
        trouble: Callable[[str, str], None],
    ) -> None:
        self._kind, self._read, self._take, self._trouble = kind, read, take, trouble
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=kind, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended; reports a device that does not let it."""
        self._stop.set()
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            self._trouble(self._kind, f"the device did not answer within {STOP_S:g} s of the stop")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                item = self._read(READ_S)
                if item is not None and not self._stop.is_set():
                    self._take(item)
            except Exception as error:
                if self._stop.is_set():
                    return  # whatever it was, it was taken away from us
                self._trouble(self._kind, text_of(error))
                self._stop.wait(READ_S)

"""How far TensorRT is with a build, as one share, and how a build is stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

Progress = Callable[[float], None]
"""Called with the share that is done, 0 to 1, never a smaller one than before. An exception of it
stops the build."""


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Share:
    """Phases that TensorRT begins within each other, each of some steps, as one share.

    A phase is worth the step of its parent in which it began.
    """

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self.value = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._phases[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, number: int) -> None:
        phase = self._phases.get(name)
        if phase is not None:
            phase.done = max(phase.done, min(number + 1, phase.steps))
            self.value = max(self.value, self._share(name))

    def finish(self, name: str) -> None:
        phase = self._phases.pop(name, None)
        if phase is not None and phase.parent is None:
            self.value = 1.0

    def _share(self, name: str) -> float:
        """What is done of the outermost phase when so much of this one is."""
        phase: _Phase | None = self._phases[name]
        within = 0.0
        while phase is not None:
            # A phase that ran within a step is done when its parent says so.
            within = min((phase.done + within) / phase.steps, 1.0)
            phase = self._phases.get(phase.parent) if phase.parent is not None else None
        return within


class Watch:
    """One build: tells its progress, and whether it is to go on.

    TensorRT calls from its own C++, where a Python exception would end the process: whatever is
    raised here is kept, the build is asked to stop, and `check` raises it afterwards.
    """

    def __init__(self, module: Any, progress: Progress) -> None:
        self._share = Share()
        self._progress = progress
        self._guard = threading.Lock()
        self._error: BaseException | None = None
        self.monitor = _monitor(module, self)

    def stop(self, error: BaseException) -> None:
        """Have the build end at its next step."""
        self._error = self._error or error

    def check(self) -> None:
        """Raise what stopped the build, if something did."""
        if self._error is not None:
            raise self._error

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._guard:
            self._share.start(name, parent, steps)

    def step(self, name: str, number: int) -> bool:
        """Whether to go on."""
        try:
            with self._guard:
                before = self._share.value
                self._share.step(name, number)
                share = self._share.value
            if share > before and self._error is None:
                self._progress(share)
        except BaseException as error:
            self.stop(error)
        return self._error is None

    def finish(self, name: str) -> None:
        with self._guard:
            self._share.finish(name)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C stops the build at its next step, and is raised by `check`."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python gives signals to the main thread
            return

        def interrupt(number: int, frame: FrameType | None) -> None:
            self.stop(KeyboardInterrupt())

        before = signal.getsignal(signal.SIGINT)
        if not callable(before):
            yield  # ignored, or not Python's
            return
        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _monitor(module: Any, watch: Watch) -> Any:
    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()

"""Processes of our own: one that is measured, its start, its lines, its use of processor and
memory, its end; and one that measures something by itself and prints what it found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryFile
from threading import Thread

from minicpmo_ros.errors import EngineError, MinicpmoError

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_END_S = 30.0
_TICK = "one more"


class MeasuredProcess:
    """`python -m module arguments`; use it with `with`, which ends it. Linux only (/proc)."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        """log: file for what the process writes to stderr."""
        self._module = module
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=subprocess.PIPE,
                stderr=file,
                stdin=subprocess.DEVNULL,
                text=True,
                # Ctrl-C at the terminal is for the bench, which then ends its processes in order.
                start_new_session=True,
            )
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        Thread(target=self._read, daemon=True).start()

    def line(self, timeout_s: float) -> str | None:
        """The next line of its stdout; None when the process has closed it.

        Raises MinicpmoError when none comes in time.
        """
        try:
            return self._lines.get(timeout=timeout_s)
        except Empty:
            raise MinicpmoError(
                f"{self._module} said nothing for {timeout_s:.0f} s; {self.last_words()}"
            ) from None

    def lines(self, timeout_s: float) -> Iterator[str]:
        """Its lines until the end; see `line`."""
        while (line := self.line(timeout_s)) is not None:
            yield line

    def cpu_s(self) -> float:
        """Processor time of all its threads so far, in seconds."""
        text = self._stat("stat")
        fields = text[text.rindex(")") + 2 :].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mb(self) -> float:
        """Resident memory in MB (10^6 bytes)."""
        return int(self._stat("statm").split()[1]) * _PAGE / 1e6

    def check(self) -> None:
        """Raises MinicpmoError when the process has ended."""
        if self._process.poll() is not None:
            raise MinicpmoError(
                f"{self._module} ended with status {self._process.returncode}; {self.last_words()}"
            )

    def end(self) -> None:
        """Ask it to end and wait; raises MinicpmoError when it fails or does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise MinicpmoError(
                f"{self._module} did not end within {_END_S:.0f} s; {self.last_words()}"
            ) from None
        if status:
            raise MinicpmoError(f"{self._module} ended with status {status}; {self.last_words()}")

    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return "it last wrote: " + "\n".join(lines[-8:]) if lines else "it wrote no error"

    def __enter__(self) -> MeasuredProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.end()
        elif self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _stat(self, name: str) -> str:
        try:
            return Path(f"/proc/{self._process.pid}/{name}").read_text()
        except OSError as error:
            self.check()
            raise MinicpmoError(f"the bench needs Linux's /proc: {error}") from error


def measured_by(
    module: str,
    spec: Path,
    what: str,
    advance: Callable[[], None],
    engines: Path | None = None,
) -> dict[str, float]:
    """What `python -m module spec` prints: numbers by name, as JSON.

    Args:
        what: is measured, for the error.
        advance: called with every `tick` of the process.
        engines: the cache of built files; None: the usual one.

    Raises:
        EngineError: it failed, with its last words.
    """
    env = dict(os.environ) | ({"MINICPMO_ENGINES": str(engines)} if engines else {})
    # A pipe that nobody reads meanwhile would hold up who prints much into it.
    with (
        TemporaryFile("w+") as printed,
        subprocess.Popen(
            [sys.executable, "-m", module, str(spec)],
            stdout=printed,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        ) as process,
    ):
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            if line.strip() == _TICK:
                advance()
            else:
                said.append(line)
        if process.wait():
            raise EngineError(f"{what} failed ({process.returncode}): {''.join(said)}")
        printed.seek(0)
        found: dict[str, float] = json.load(printed)
    return found


def tick() -> None:
    """In a process that `measured_by` runs: something more is done."""
    print(_TICK, file=sys.stderr, flush=True)


def machine_s() -> float:
    """Processor time that all processes of the machine have used, in seconds of one core."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words[:8])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def wait_until(at_s: float, process: MeasuredProcess) -> Iterator[None]:
    """Twice a second until time.monotonic() is at_s, while the process lives."""
    while (left_s := at_s - time.monotonic()) > 0:
        time.sleep(min(0.5, left_s))
        process.check()
        yield

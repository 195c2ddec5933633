"""Shows how far set-up is, one line a step, and keeps what its commands print in a file each."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.bootstrap.machine import SetupError

TAIL_LINES = 20


class Progress:
    """Prints steps as `[2/5] name ... 3.1 s` and runs their commands quietly.

    On a terminal the line of the running step shows what its command printed last.
    """

    def __init__(self, total: int, folder: Path) -> None:
        self.total = total
        self.folder = folder
        self.number = 0
        self.log = folder / "setup.log"
        self.terminal = sys.stdout.isatty()
        self.done = 0
        self._title = ""
        self._started = 0.0

    def begin(self, name: str, why: str = "") -> None:
        """Announces the next step that has something to do."""
        self.done += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / f"{self.number}-{name.replace(' ', '-').lower()}.log"
        self.log.write_text("")
        self._title = f"[{self.number}/{self.total}] {name}" + (f" ({why})" if why else "")
        self._started = time.monotonic()
        if not self.terminal:
            self.say(f"{self._title} ...")

    def end(self) -> None:
        self.say(f"{self._title}: {time.monotonic() - self._started:.1f} s")

    def say(self, text: str) -> None:
        if self.terminal:
            sys.stdout.write("\r\033[K")
        print(text, flush=True)

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        may_fail: bool = False,
        cwd: Path | None = None,
    ) -> None:
        """Runs a command. Raises SetupError with the end of what it printed when it fails."""
        with self.log.open("a") as log:
            log.write(f"$ {shlex.join(command)}\n")
            log.flush()
            try:
                process = subprocess.Popen(
                    command,
                    env=dict(environment),
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                )
            except OSError as error:
                raise SetupError(f"cannot run {command[0]}: {error.strerror}") from None
            with process:
                assert process.stdout is not None
                for line in process.stdout:
                    log.write(line)
                    self._show(line)
        if process.returncode != 0 and not may_fail:
            tail = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            raise SetupError(
                "\n".join(f"    {line}" for line in tail)
                + f"\n{command[0]} failed with exit status {process.returncode};"
                f" everything it printed is in {self.log}"
            )

    def _show(self, line: str) -> None:
        text = line.strip()
        if self.terminal and text:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write("\r\033[K" + f"{self._title}  {text}"[:width])
            sys.stdout.flush()

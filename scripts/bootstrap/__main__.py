"""Sets this checkout up: `python3 -m scripts.bootstrap [run | test | lint | extras]`.

Plain Python and its standard library. Run again at any time: what is current is left alone, what
was interrupted is done again.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import time
from pathlib import Path

from scripts.bootstrap.environment import Environment
from scripts.bootstrap.extras import PROFILES, choose_extras
from scripts.bootstrap.machine import SetupError, choose_ros, clean_environment, find_python
from scripts.bootstrap.progress import Progress
from scripts.bootstrap.system_packages import install, missing, needs

ROOT = Path(__file__).resolve().parents[2]
STEPS = 5


def set_up(profile: str) -> None:
    """Brings everything `profile` needs up to date. Raises SetupError."""
    started = time.monotonic()
    ros = choose_ros(os.environ)
    python = find_python(ros, os.environ)
    progress = Progress(STEPS, ROOT / "build" / "setup")

    progress.number = 1
    absent = missing(needs(python, ros, profile))
    if absent:
        progress.begin("System packages")
        install(absent, progress)
        progress.end()

    environment = Environment(ROOT, python, ros, clean_environment(os.environ, ros), progress)
    extras, skipped = choose_extras(profile, python, ROOT, os.environ.get("MINICPMO_WITHOUT", ""))
    for number, step in enumerate(
        (
            environment.create,
            environment.install_ros,
            lambda: environment.install_packages(extras),
            environment.install_package,
        ),
        start=2,
    ):
        progress.number = number
        step()

    for line in skipped:
        progress.say(line)
    if progress.done:
        seconds = time.monotonic() - started
        progress.say(f"Set up in .venv: {python.name}, {ros.name} ({seconds:.0f} s)")
    elif profile == "extras":
        progress.say(f"Extras in .venv: {', '.join(extras)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m scripts.bootstrap", description=__doc__)
    parser.add_argument("profile", nargs="?", default="run", choices=sorted(PROFILES))
    profile = parser.parse_args().profile
    lock = ROOT / "build" / "setup" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        # Two `make` at once: the second waits, then finds everything done.
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            set_up(profile)
        except SetupError as error:
            print(f"\nset-up stopped: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nset-up interrupted; run it again to go on", file=sys.stderr)
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`minicpmo bench ros`: what the nodes cost, how late they are, what they lose; speed of replay."""

from __future__ import annotations

import tempfile
from pathlib import Path

from minicpmo_ros.bench.figures import show
from minicpmo_ros.bench.live import Setting, run_stack
from minicpmo_ros.bench.live_figures import figures as live_figures
from minicpmo_ros.bench.replays import measure_memory, measure_replays
from minicpmo_ros.errors import MinicpmoError


def bench(
    seconds: float = 60.0,
    json: Path | None = None,
    *,
    device: bool = False,
    microphone: bool = False,
    hour: bool = False,
) -> None:
    """Measure, print a table, and with a path write the figures as JSON.

    seconds: of the live part. device, microphone: play on and listen to PortAudio's default
    devices instead of the clock sink and a file. hour: also replay an hour of bag time. Raises
    MinicpmoError where ROS, a device or the speech library is missing.
    """
    _need_ros()
    setting = Setting(seconds, device, microphone)
    with tempfile.TemporaryDirectory(prefix="minicpmo_bench_") as name:
        folder = Path(name)
        figures = live_figures(run_stack(setting, folder), on_device=device)
        figures += measure_replays(folder)
        if hour:
            figures += measure_memory(folder)
    conditions = {
        "speaker": "sound device (PortAudio)" if device else "clock sink, blocks of 20 ms",
        "microphone": "sound device (PortAudio)" if microphone else "file, chunks of 100 ms",
        "seconds": seconds,
    }
    show("minicpmo bench ros", figures, json, conditions)


def _need_ros() -> None:
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise MinicpmoError(
            f"no ROS 2 here ({error}): run `make setup`, or source your ROS"
        ) from error

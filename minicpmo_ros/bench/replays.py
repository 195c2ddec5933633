"""The replay half of `minicpmo bench ros`: speed of both ways of replay, memory over an hour."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np

from minicpmo_ros.bench.figures import Figure
from minicpmo_ros.bench.process import MeasuredProcess
from minicpmo_ros.replay.bag import open_bag
from minicpmo_ros.replay.progress import no_progress, progress_bar
from minicpmo_ros.replay.run import replay
from minicpmo_ros.replay.scene import LENGTH_S, write_scene

RUNS = 5
ROS_RUNS = 3
HOUR_S = 3600.0
FLAT_MB = 5.0  # an hour's growth that the allocator alone may cause
WARM_UP_S = 900.0  # of bag time: caches and pools fill


def measure_replays(folder: Path) -> list[Figure]:
    """Replay the demo's scene, without DDS and with; the median of some runs."""
    scene = _scene(folder)
    offline = [_speed(scene, folder / "replayed", ros=False) for _ in range(RUNS)]
    with_ros = [_speed(scene, folder / "replayed", ros=True) for _ in range(ROS_RUNS)]
    return [
        Figure.at_least("ros.replay_x_realtime", median(offline), 50, "x"),
        Figure("ros.replay_x_realtime.best", max(offline), "x"),
        Figure("ros.replay_ros_x_realtime", median(with_ros), "x"),
    ]


def measure_memory(folder: Path, seconds: float = HOUR_S) -> list[Figure]:
    """Resident memory of a process that replays the scene over and over, without DDS.

    The slope is that of a straight line through its memory after the first quarter of an hour of
    bag time, or half of `seconds` where that is less.
    """
    scene = _scene(folder)
    samples: list[tuple[float, float]] = []
    arguments = [str(scene), str(folder / "long"), str(seconds)]
    log = folder / "long.log"
    with (
        MeasuredProcess("minicpmo_ros.bench.long_replay", arguments, log) as process,
        progress_bar("an hour of bag time", seconds) as progress,
    ):
        for line in process.lines(timeout_s=120.0):
            at_s = float(line)
            samples.append((at_s, process.memory_mb()))
            progress(at_s)
    slope, last_mb = _slope(np.array(samples), min(WARM_UP_S, seconds / 2))
    return [
        Figure.at_most("ros.memory_growth_mb_per_hour", slope * 3600.0, FLAT_MB, "MB/h"),
        Figure("ros.memory_replay_mb", last_mb, "MB"),
    ]


def _scene(folder: Path) -> Path:
    scene = folder / "scene"
    if not scene.exists():
        with progress_bar("scene", LENGTH_S) as progress:
            write_scene(scene, progress=progress)
    return scene


def _speed(scene: Path, out: Path, *, ros: bool) -> float:
    label = "replay, real nodes" if ros else "replay"
    with open_bag(scene) as bag, progress_bar(label, bag.duration_s) as progress:
        summary = replay(
            bag,
            out,
            ros=ros,
            overwrite=True,
            parameters={"brain": "reflex"},
            progress=progress if ros else no_progress,
        )
    return summary.times_real_time


def _slope(samples: np.ndarray, from_s: float) -> tuple[float, float]:
    """(MB a second, last MB) of rows (s, MB) from from_s on, by least squares."""
    late = samples[samples[:, 0] >= from_s]
    return float(np.polyfit(late[:, 0], late[:, 1], 1)[0]), float(late[-1, 1])

"""`minicpmo demo`: a scene made by code, lived through by the stack, shown as it happens."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.nodes.parameter import Value
from minicpmo_ros.replay.bag import open_bag
from minicpmo_ros.replay.progress import no_progress, progress_bar
from minicpmo_ros.replay.run import console, print_summary, replay, report_bag, speech_wav


def run_demo(
    out: Path,
    *,
    ros: bool,
    open_report: bool,
    parameters: dict[str, Value] | None = None,
) -> None:
    """Scene, replay, report and speech in the folder out; what is there is made again.

    parameters: of the omni node, where they are not its defaults.
    """
    from minicpmo_ros.replay.report.live import LiveView
    from minicpmo_ros.replay.scene import LENGTH_S, write_scene

    if ros:
        _need_ros()
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar("scene", LENGTH_S) as progress:
        scene = write_scene(out / "scene", overwrite=True, progress=progress)
    how = "the real nodes, in simulated time" if ros else "the session, without ROS"
    console.print(f"A person talks to a robot for {scene.length_s:.0f} s; replayed through {how}:")
    for line in scene.lines:
        console.print(f"  {line.start_s:5.1f} s  {line.text}")
    console.print()
    with open_bag(scene.bag) as bag, LiveView() as view:
        summary = replay(
            bag,
            out / "conversation",
            ros=ros,
            overwrite=True,
            parameters=parameters,
            progress=no_progress,
            watch=view.add,
        )
    console.print()
    print_summary(summary)
    report = out / "report.html"
    report_bag(summary.bag, report, out / "report.png")
    wav = speech_wav(summary.bag, out / "speech.wav")
    console.print(f"speech   {wav or 'none: the robot said nothing'}")
    if open_report and not webbrowser.open(report.resolve().as_uri()):
        console.print("No browser could be opened; open the report by hand.")


def _need_ros() -> None:
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise MinicpmoError(
            f"no ROS 2 here ({error}): run `make setup`, source your ROS, or add --no-ros"
        ) from error

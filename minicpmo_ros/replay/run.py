"""What the commands do with recordings: replay, report, import; each says what it made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.nodes.parameter import Value
from minicpmo_ros.replay.bag import Bag, open_bag
from minicpmo_ros.replay.drive import ReplaySummary, Stage, Watch, no_watch
from minicpmo_ros.replay.progress import progress_bar
from minicpmo_ros.topics import Topic

console = Console(soft_wrap=True, highlight=False)


def replay_bag(
    bag: Path,
    out: Path,
    *,
    ros: bool,
    inputs: bool,
    overwrite: bool,
    remap: dict[str, str],
    namespace: str | None,
    parameters: dict[str, Value] | None = None,
) -> None:
    with (
        open_bag(bag, remap, namespace) as opened,
        progress_bar("replay", opened.duration_s) as progress,
    ):
        summary = replay(
            opened,
            out,
            ros=ros,
            copy_inputs=inputs,
            overwrite=overwrite,
            parameters=parameters,
            progress=progress,
        )
    print_summary(summary)


def replay(
    bag: Bag,
    out: Path,
    *,
    ros: bool,
    copy_inputs: bool = True,
    overwrite: bool = False,
    parameters: dict[str, Value] | None = None,
    progress: Callable[[float], None],
    watch: Watch = no_watch,
) -> ReplaySummary:
    """One replay of an open bag, with real nodes or without ROS; both write the same bytes.

    parameters: of the omni node (replay/parameters.py).
    """
    from minicpmo_ros.replay.drive import drive

    stage_of: Callable[[Bag, Topic | None], Stage]
    if ros:
        from minicpmo_ros.replay.ros_replay import RosStage

        stage_of = partial(RosStage.for_bag, parameters=parameters)
    else:
        from minicpmo_ros.replay.offline import OfflineStage

        stage_of = partial(OfflineStage.for_bag, parameters=parameters)
    return drive(
        bag,
        out,
        stage_of,
        copy_inputs=copy_inputs,
        overwrite=overwrite,
        progress=progress,
        watch=watch,
    )


def remapping(rules: list[str]) -> dict[str, str]:
    """ "FROM:=TO" rules as ROS writes them; raises ConfigError."""
    pairs = [rule.partition(":=") for rule in rules]
    for rule, (source, _, target) in zip(rules, pairs, strict=True):
        if not (source and target):
            raise ConfigError(f"remap rule '{rule}': must be FROM:=TO, e.g. /cam/image:=image_raw")
    return {source: target for source, _, target in pairs}


def print_summary(summary: ReplaySummary) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("bag", str(summary.bag))
    table.add_row("length", f"{summary.recorded_s:.1f} s, {summary.units} units")
    table.add_row("robot turns", f"{summary.turns}, {summary.interruptions} interrupted")
    table.add_row("alerts", str(summary.alerts))
    table.add_row(
        "replayed in", f"{summary.wall_s:.1f} s: {summary.times_real_time:.0f} times real time"
    )
    for name, count in {**summary.unreadable, **summary.troubles}.items():
        table.add_row("problems", f"{name}: {count}")
    console.print(table)


def report_bag(bag: Path, html: Path, png: Path | None) -> None:
    from minicpmo_ros.replay.report.builder import ReportBuilder
    from minicpmo_ros.replay.report.html import write_html
    from minicpmo_ros.replay.report.png import write_png

    builder = ReportBuilder()
    with open_bag(bag) as opened, progress_bar("report", opened.duration_s) as progress:
        for topic, log_ns, message in opened.messages():
            builder.add(topic.name, log_ns, message)
            progress((log_ns - opened.start_ns) / 1e9)
    view = builder.build()
    write_html(view, html, bag.stem)
    console.print(f"report   {html}")
    if png is not None:
        write_png(view, png, bag.stem)
        console.print(f"picture  {png}")


def bag_from_file(media: Path, out: Path, rate_hz: float, overwrite: bool) -> None:
    from minicpmo_ros.replay.from_video import bag_from_media

    with progress_bar("import", None) as progress:
        made = bag_from_media(media, out, rate_hz=rate_hz, overwrite=overwrite, progress=progress)
    console.print(f"bag      {made.bag}: {made.pictures} pictures, {made.sound_s:.1f} s of sound")
    for note in made.notes:
        console.print(f"note     {note}")


def speech_wav(bag: Path, out: Path) -> Path | None:
    """What left the speaker, as a wav of the bag's length; None where nothing did."""
    import numpy as np
    import soundfile

    from minicpmo_ros.messages import NS_PER_S, SPEECH_RATE_HZ, AudioChunk
    from minicpmo_ros.topics import PLAYED

    with open_bag(bag) as opened:
        length = round((opened.end_ns - opened.start_ns) * SPEECH_RATE_HZ / NS_PER_S)
        sound = np.zeros(length + SPEECH_RATE_HZ, np.int16)
        heard = False
        for _, _, chunk in opened.messages([PLAYED]):
            assert isinstance(chunk, AudioChunk)
            at = round((chunk.stamp_ns - opened.start_ns) * SPEECH_RATE_HZ / NS_PER_S)
            part = chunk.data[max(0, -at) : max(0, len(sound) - at)]
            sound[max(0, at) : max(0, at) + len(part)] = part
            heard = True
    if heard:
        soundfile.write(out, sound, SPEECH_RATE_HZ)
    return out if heard else None

"""`minicpmo live`: the stack on this machine's camera, microphone and speaker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minicpmo_ros.errors import DeviceError, MinicpmoError
from minicpmo_ros.replay.run import console


@dataclass(frozen=True)
class Found:
    """A device that the stack wants. name: what it is, or why there is none."""

    what: str
    there: bool
    name: str


def look_around() -> tuple[Found, Found, Found]:
    """Camera, microphone and speaker of this machine."""
    from minicpmo_ros.media.camera_v4l2 import video_devices
    from minicpmo_ros.media.devices import find_device

    def sound(what: str, kind: Literal["input", "output"]) -> Found:
        try:
            return Found(what, True, find_device("", kind).name)
        except DeviceError as error:
            return Found(what, False, str(error))

    cameras = video_devices()
    name = f"{cameras[0][1]} ({cameras[0][0]})" if cameras else "no /dev/video* on this machine"
    return (
        Found("camera", bool(cameras), name),
        sound("microphone", "input"),
        sound("speaker", "output"),
    )


def print_devices() -> None:
    from minicpmo_ros.media.camera_v4l2 import video_devices
    from minicpmo_ros.media.devices import list_devices

    console.print("Cameras")
    for path, name in video_devices() or [("none", "no /dev/video*")]:
        console.print(f"  {path}  {name}")
    console.print("Sound")
    try:
        listed = list_devices()
    except DeviceError as error:
        console.print(f"  none: {error}")
        return
    for device in listed:
        console.print(f"  {device}")
    if not listed:
        console.print("  none")


def run_live(record: Path | None, params_file: Path | None) -> None:
    """Run the stack until Ctrl-C; raises DeviceError where it could neither see nor hear."""
    camera, microphone, speaker = found = look_around()
    for device in found:
        console.print(f"{device.what:<10} {'found ' if device.there else 'MISSING'} {device.name}")
    if params_file is None and not (camera.there or microphone.there):
        raise DeviceError(
            "neither a camera nor a microphone: nothing to live on. Plug one in, name it in a "
            "parameter file (--params-file), or try `minicpmo demo`, which needs neither"
        )
    if params_file is not None and not params_file.is_file():
        raise MinicpmoError(f"no parameter file {params_file}")
    overrides: dict[str, dict[str, Any]] = {}
    if params_file is None:
        overrides = {
            "camera": {"source": "v4l2:0"} if camera.there else {},
            "mic": {} if microphone.there else {"source": "silence"},
            "omni": {} if camera.there else {"image_transport": "none"},
            "speaker": {} if speaker.there else {"sink": "clock"},
        }
    _spin(overrides, camera.there or params_file is not None, record, params_file)


def _spin(
    overrides: dict[str, dict[str, Any]],
    with_camera: bool,
    record: Path | None,
    params_file: Path | None,
) -> None:
    from rclpy.parameter import Parameter

    from minicpmo_ros.nodes.camera import CameraNode
    from minicpmo_ros.nodes.mic import MicNode
    from minicpmo_ros.nodes.omni import OmniNode
    from minicpmo_ros.nodes.run import run_nodes
    from minicpmo_ros.nodes.speaker import SpeakerNode
    from minicpmo_ros.nodes.watch import WatchNode
    from minicpmo_ros.replay.bag_writer import BagWriter
    from minicpmo_ros.replay.report.live import LiveView
    from minicpmo_ros.topics import ALL

    def maker(kind: Callable[..., Any], name: str) -> Callable[[], Any]:
        values = [Parameter(k, value=v) for k, v in overrides.get(name, {}).items()]
        return lambda: kind(parameter_overrides=values)

    kinds = [maker(CameraNode, "camera")] if with_camera else []
    kinds += [maker(MicNode, "mic"), maker(SpeakerNode, "speaker"), maker(OmniNode, "omni")]
    arguments = ["--ros-args", "--params-file", str(params_file)] if params_file else None
    by_name = {topic.name: topic for topic in ALL}
    writer = BagWriter(record) if record else None
    try:
        with LiveView() as view:

            def watch(topic: str, log_ns: int, message: Any) -> None:
                view.add(topic, log_ns, message)
                if writer is not None:
                    writer.write(by_name[topic], log_ns, message)

            run_nodes(kinds, arguments, beside=[lambda: WatchNode(watch)])
    finally:
        if writer is not None:
            writer.close()
            console.print(f"recorded {record}; `minicpmo report {record}` makes its page")

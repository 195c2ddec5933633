"""The camera as the camera node sees it: its settings, its state, and one way to get pictures.

Four sources stand behind the same three calls: a V4L2 device, a video file, a folder of pictures,
and a drawn scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.media.encodings import MAX_PIXELS
from minicpmo_ros.media.pacing import Clock
from minicpmo_ros.messages import Picture

SOURCES = ("v4l2", "file", "folder", "synthetic")
_EXAMPLES = "v4l2:/dev/video0, v4l2:0, file:PATH, folder:PATH or synthetic"


@dataclass(frozen=True)
class CameraConfig:
    """Settings of a camera; raises `ConfigError` that names the field.

    source: "v4l2:/dev/video0", "v4l2:0", "file:PATH", "folder:PATH" or "synthetic". width, height:
    the mode asked of a device (which may answer with its nearest), the size of the drawn scene, and
    the box into which pictures of files are scaled down, in pixels. rate_hz: pictures a second at
    most. loop: a file or folder starts again at its end. fourcc: pixel format asked of a device,
    such as "MJPG" (which USB 2 needs above VGA) or "YUYV"; "" leaves it to the device.
    """

    source: str = "v4l2:/dev/video0"
    width: int = 640
    height: int = 480
    rate_hz: float = 10.0
    loop: bool = True
    fourcc: str = ""
    frame_id: str = "camera"

    def __post_init__(self) -> None:
        if self.kind not in SOURCES:
            raise ConfigError(f"camera source {self.source!r} is unknown: it would be {_EXAMPLES}")
        if bool(self.target) == (self.kind == "synthetic"):
            fault = "takes no path" if self.kind == "synthetic" else "names no device or path"
            raise ConfigError(f"camera source {self.source!r} {fault}: it would be {_EXAMPLES}")
        if self.width <= 0 or self.height <= 0 or self.width * self.height > MAX_PIXELS:
            raise ConfigError(
                f"camera width x height is {self.width}x{self.height}: "
                f"both would be positive, with at most {MAX_PIXELS} pixels"
            )
        if not (math.isfinite(self.rate_hz) and 0.01 <= self.rate_hz <= 1000.0):
            raise ConfigError(f"camera rate_hz is {self.rate_hz}: it would be 0.01 to 1000")
        if self.fourcc and (len(self.fourcc) != 4 or not self.fourcc.isascii()):
            raise ConfigError(
                f"camera fourcc is {self.fourcc!r}: it would be four letters such as MJPG, or empty"
            )

    @property
    def kind(self) -> str:
        """The part of the source before its colon."""
        return self.source.partition(":")[0]

    @property
    def target(self) -> str:
        """Device or path; "" for the drawn scene. A bare number is that of /dev/video*."""
        target = self.source.partition(":")[2]
        if self.kind == "v4l2":
            return f"/dev/video{int(target)}" if target.isdecimal() else target
        return str(Path(target).expanduser()) if target else ""


@dataclass(frozen=True)
class CameraStatus:
    """What a camera is doing, for diagnostics; counts since it was opened.

    working: pictures come, or would if they were due. detail: why not, or what is worth knowing.
    pictures: handed out. dropped: captured and never read, because a newer one was there.
    unreadable: files of a folder that hold no picture. reopened: returns after an unplug.
    finished: the recording is at its end. width, height: of the pictures as they come.
    """

    source: str
    working: bool = False
    detail: str = "closed"
    pictures: int = 0
    dropped: int = 0
    unreadable: int = 0
    reopened: int = 0
    finished: bool = False
    width: int = 0
    height: int = 0


class Camera(Protocol):
    """A source of pictures, read by one thread; `close` and `status` may come from any."""

    def open(self) -> None:
        """Raises `DeviceError` or `InputError` when no picture can be had."""

    def read(self, timeout_s: float) -> Picture | None:
        """The newest picture not read yet, stamped with its capture; None if none comes in time."""

    def close(self) -> None:
        """Gives the device back; a `read` in another thread returns None."""

    @property
    def status(self) -> CameraStatus: ...


def make_camera(config: CameraConfig, clock: Clock) -> Camera:
    """The camera that config.source names, not yet opened. clock: ROS time in ns."""
    if config.kind == "v4l2":
        from minicpmo_ros.media.camera_v4l2 import V4l2Camera

        return V4l2Camera(config, clock)
    from minicpmo_ros.media import camera_paced

    if config.kind == "file":
        return camera_paced.FileCamera(config, clock)
    if config.kind == "folder":
        return camera_paced.FolderCamera(config, clock)
    return camera_paced.SyntheticCamera(config, clock)

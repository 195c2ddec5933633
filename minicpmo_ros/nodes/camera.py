"""The camera node: pictures from a camera, video, folder or rendered scene, for robots whose camera
has no driver of its own.
"""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any

from minicpmo_ros import topics
from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.media.camera import CameraConfig, make_camera
from minicpmo_ros.media.camera_info import CameraInfo, load_camera_info
from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.messages import Picture
from minicpmo_ros.nodes.base import StackNode
from minicpmo_ros.nodes.diagnostics import OK, WARN, Latency, Status
from minicpmo_ros.nodes.ros_types import TYPES, header, uint8_array
from minicpmo_ros.nodes.run import run_nodes


class CameraNode(StackNode):
    def __init__(self, **options: Any) -> None:
        super().__init__("camera", **options)
        self._camera: Any = None
        self._calibration: CameraInfo | None = None
        self._reader: threading.Thread | None = None
        self._running = threading.Event()
        self._hop = Latency()

    # -- lifecycle --------------------------------------------------------------------------

    def configure(self) -> None:
        config = CameraConfig(
            source=self.value("source"),
            width=self.value("width"),
            height=self.value("height"),
            rate_hz=self.value("rate_hz"),
            loop=self.value("loop"),
            frame_id=self.value("frame_id"),
        )
        path = self.value("camera_info")
        self._calibration = load_camera_info(path) if path else None
        self._camera = make_camera(config, self.now_ns)
        self._camera.open()
        for topic in (topics.IMAGE, topics.IMAGE_COMPRESSED, topics.CAMERA_INFO):
            self.advertise(topic)

    def activate(self) -> None:
        self._running.set()
        self._reader = threading.Thread(target=self._read, name="camera", daemon=True)
        self._reader.start()

    def deactivate(self) -> None:
        self._running.clear()
        if self._reader is not None:
            self._reader.join(2.0)
            self._reader = None

    def cleanup(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    # -- pictures ---------------------------------------------------------------------------

    def _read(self) -> None:
        while self._running.is_set():
            try:
                picture = self._camera.read(0.2)
                if picture is not None:
                    self._publish(picture)
            except MinicpmoError as error:
                self.troubles.add("camera", str(error))
                self._running.wait(0.2)
            except Exception as error:
                if self._running.is_set():
                    self.troubles.add("camera", f"{type(error).__name__}: {error}")

    def _publish(self, picture: Picture) -> None:
        raw = self.readers(topics.IMAGE) > 0
        compressed = self.readers(topics.IMAGE_COMPRESSED) > 0
        if not (raw or compressed):
            return
        rgb = picture.rgb()
        height, width = rgb.shape[:2]
        head = header(picture.stamp_ns, picture.frame_id)
        if raw:
            message = TYPES.new(
                topics.IMAGE.type,
                header=head,
                height=height,
                width=width,
                encoding="rgb8",
                is_bigendian=0,
                step=width * 3,
                data=uint8_array(rgb),
            )
            self.send_ros(topics.IMAGE, message)
        if compressed:
            data = encode_jpeg(rgb, self.value("jpeg_quality"))
            message = TYPES.new(
                topics.IMAGE_COMPRESSED.type,
                header=head,
                format="rgb8; jpeg compressed bgr8",
                data=uint8_array(data),
            )
            self.send_ros(topics.IMAGE_COMPRESSED, message)
        if self.readers(topics.CAMERA_INFO):
            info = self._calibration or CameraInfo(width, height)
            self.send_ros(topics.CAMERA_INFO, info_message(info.scaled(width, height), head))
        self._hop.add_ns(self.now_ns() - picture.stamp_ns)

    # -- diagnostics ------------------------------------------------------------------------

    def statuses(self) -> list[Status]:
        if self._camera is None:
            return []
        status = self._camera.status
        values = {**asdict(status), **self._hop.values("capture to published")}
        level = OK if status.working else WARN
        return [Status("device", level, status.detail or "ok", values)]


def info_message(info: CameraInfo, head: Any) -> Any:
    """sensor_msgs/CameraInfo."""
    return TYPES.new(
        topics.CAMERA_INFO.type,
        header=head,
        width=info.width,
        height=info.height,
        distortion_model=info.distortion_model,
        d=list(info.d),
        k=list(info.k),
        r=list(info.r),
        p=list(info.p),
    )


def main() -> None:
    run_nodes([CameraNode])

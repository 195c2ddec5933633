"""The camera node: pictures from a camera, video, folder or rendered scene, for robots whose camera
has no driver of its own.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from minicpmo_ros import topics
from minicpmo_ros.media.camera import Camera, CameraConfig, make_camera
from minicpmo_ros.media.camera_info import CameraInfo, load_camera_info
from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.messages import Picture
from minicpmo_ros.nodes.base import StackNode
from minicpmo_ros.nodes.diagnostics import OK, WARN, Latency, Status
from minicpmo_ros.nodes.reader import Reader
from minicpmo_ros.nodes.ros_types import TYPES, header, uint8_array
from minicpmo_ros.nodes.run import run_process


class CameraNode(StackNode):
    def __init__(self, **options: Any) -> None:
        super().__init__("camera", **options)
        self._camera: Camera | None = None
        self._calibration: CameraInfo | None = None
        self._jpeg_quality = 0
        self._reader: Reader[Picture] | None = None
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
        self._jpeg_quality = self.value("jpeg_quality")
        self._camera = make_camera(config, self.now_ns)
        self._camera.open()
        for topic in (topics.IMAGE, topics.IMAGE_COMPRESSED, topics.CAMERA_INFO):
            self.advertise(topic)

    def activate(self) -> None:
        self._reader = Reader("camera", self._read, self._publish, self.troubles.add)

    def deactivate(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()

    def cleanup(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()

    # -- pictures ---------------------------------------------------------------------------

    def _read(self, timeout_s: float) -> Picture | None:
        camera = self._camera
        if camera is None or not self.now_ns():  # simulated time has not begun: nothing to stamp
            time.sleep(timeout_s)
            return None
        return camera.read(timeout_s)

    def _publish(self, picture: Picture) -> None:
        """Send what somebody listens to: a picture costs, above all as JPEG."""
        raw = self.readers(topics.IMAGE) > 0
        compressed = self.readers(topics.IMAGE_COMPRESSED) > 0
        described = self.readers(topics.CAMERA_INFO) > 0
        if not (raw or compressed or described):
            return
        rgb = picture.rgb()
        height, width = rgb.shape[:2]
        head = header(picture.stamp_ns, picture.frame_id)
        if raw:
            self.send_ros(topics.IMAGE, image_message(rgb, head))
        if compressed:
            message = TYPES.new(
                topics.IMAGE_COMPRESSED.type,
                header=head,
                format="rgb8; jpeg compressed bgr8",
                data=uint8_array(encode_jpeg(rgb, self._jpeg_quality)),
            )
            self.send_ros(topics.IMAGE_COMPRESSED, message)
        if described:
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


def image_message(rgb: np.ndarray, head: Any) -> Any:
    """sensor_msgs/Image of uint8 [height, width, 3]."""
    height, width = rgb.shape[:2]
    return TYPES.new(
        topics.IMAGE.type,
        header=head,
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=width * 3,
        data=uint8_array(rgb),
    )


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


def main() -> int:
    return run_process(CameraNode)

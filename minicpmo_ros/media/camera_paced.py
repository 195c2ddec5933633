"""Cameras that are no device: a video file, a folder of pictures, a drawn scene, in real time."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minicpmo_ros.errors import InputError
from minicpmo_ros.media.camera import CameraConfig, CameraStatus
from minicpmo_ros.media.compressed import compressed_to_rgb
from minicpmo_ros.media.image import resize_to_fit
from minicpmo_ros.media.opencv import opencv
from minicpmo_ros.media.pacing import Clock, Pacing, Sleep
from minicpmo_ros.media.synthetic_scene import SyntheticScene
from minicpmo_ros.messages import Picture

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class _PacedCamera:
    """What the three have in common: a pace, a status, and a picture for each frame due."""

    def __init__(self, config: CameraConfig, clock: Clock, sleep: Sleep = time.sleep) -> None:
        self._config, self._clock, self._sleep = config, clock, sleep
        self._pacing: Pacing | None = None
        self._status = CameraStatus(config.source)
        # A capture must not be released under a thread that decodes from it.
        self._decoding = threading.Lock()

    @property
    def status(self) -> CameraStatus:
        return self._status

    def open(self) -> None:
        self.close()
        self._status = CameraStatus(self._config.source, detail="")
        frame_rate_hz, detail = self._start()
        self._pacing = Pacing(
            frame_rate_hz, self._config.rate_hz, self._clock, self._sleep, self._aligned
        )
        self._status = replace(self._status, working=True, detail=self._status.detail or detail)

    def read(self, timeout_s: float) -> Picture | None:
        pacing = self._pacing
        if pacing is None or self._status.finished:
            self._sleep(timeout_s)
            return None
        tick = pacing.next(timeout_s)
        if tick is None:
            return None
        with self._decoding:
            closed = self._pacing is not pacing
            rgb = None if closed else self._frame(tick.frame, tick.stamp_ns)
        if rgb is None:
            return None
        self._status = replace(
            self._status,
            pictures=self._status.pictures + 1,
            dropped=self._status.dropped + tick.late,
            width=rgb.shape[1],
            height=rgb.shape[0],
        )
        return Picture.of(tick.stamp_ns, rgb, self._config.frame_id)

    def close(self) -> None:
        if self._pacing is not None:
            self._pacing.close()
            with self._decoding:
                self._pacing = None
                self._release()
            self._status = replace(self._status, working=False, detail="closed")

    _aligned = False

    def _release(self) -> None:
        """Gives back what `_start` took."""

    def _start(self) -> tuple[float, str]:
        """Opens the source; its frames a second and a word on it. Raises `InputError`."""
        raise NotImplementedError

    def _frame(self, frame: int, stamp_ns: int) -> np.ndarray | None:
        """RGB of that frame, counted on through every round; None if there is none."""
        raise NotImplementedError

    def _finish(self, detail: str) -> None:
        self._status = replace(self._status, working=False, finished=True, detail=detail)


class FileCamera(_PacedCamera):
    """A video file, any that FFMPEG reads, at its own speed.

    Stamps are start + frame / frame rate: the position that OpenCV reports lags a frame. A file
    with a variable frame rate is played at its mean.
    """

    _capture: Any = None
    _round_start = 0
    _grabbed = 0

    def _start(self) -> tuple[float, str]:
        path = self._config.target
        if not Path(path).is_file():
            raise InputError(f"video file {path} does not exist or is no file")
        self._rewind()
        cv2 = opencv()
        rate_hz = float(self._capture.get(cv2.CAP_PROP_FPS))
        if not self._capture.grab():
            self._release()
            raise InputError(f"video file {path} holds no picture that FFMPEG can decode")
        self._round_start = 0
        self._rewind()
        if 0.1 <= rate_hz <= 1000.0:
            return rate_hz, f"{rate_hz:g} frames a second"
        return self._config.rate_hz, "states no frame rate: played at rate_hz"

    def _rewind(self) -> None:
        # Opening anew: seeking to frame 0 is not exact in every container.
        cv2 = opencv()
        self._release()
        self._capture = cv2.VideoCapture(self._config.target, cv2.CAP_FFMPEG)
        self._grabbed = 0
        if not self._capture.isOpened():
            raise InputError(
                f"video file {self._config.target} cannot be opened: it has no video stream "
                "that FFMPEG knows"
            )

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _frame(self, frame: int, stamp_ns: int) -> np.ndarray | None:
        cv2 = opencv()
        while self._round_start + self._grabbed <= frame:
            if self._capture.grab():
                self._grabbed += 1
                continue
            if not self._config.loop or self._grabbed == 0:
                self._finish(f"at its end after {self._round_start + self._grabbed} frames")
                return None
            self._round_start += self._grabbed
            self._rewind()
        done, bgr = self._capture.retrieve()
        if not done:
            self._status = replace(self._status, unreadable=self._status.unreadable + 1)
            return None
        fitted = resize_to_fit(bgr, self._config.width, self._config.height)
        rgb: np.ndarray = cv2.cvtColor(fitted, cv2.COLOR_BGR2RGB)
        return rgb


class FolderCamera(_PacedCamera):
    """JPEG, PNG and WebP files of a folder in the order of their names (9 before 10), one a period.

    A file that is no picture is named in the status, counted, and the next one takes its place.
    """

    def _start(self) -> tuple[float, str]:
        folder = Path(self._config.target)
        if not folder.is_dir():
            raise InputError(f"picture folder {folder} does not exist or is no folder")
        found = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES]
        if not found:
            raise InputError(
                f"picture folder {folder} holds no picture ({', '.join(PICTURE_SUFFIXES)})"
            )
        self._paths = sorted(found, key=natural_order)
        # Files skipped so far: they shift which file a frame is.
        self._shift = 0
        self._unreadable: set[Path] = set()
        if all(self._decode(path) is None for path in self._paths):
            raise InputError(
                f"none of the {len(found)} pictures in {folder} can be read: {self._status.detail}"
            )
        return self._config.rate_hz, f"{len(found)} pictures"

    def _frame(self, frame: int, stamp_ns: int) -> np.ndarray | None:
        for _ in self._paths:
            place = frame + self._shift
            if place >= len(self._paths) and not self._config.loop:
                self._finish(f"at its end after {len(self._paths)} pictures")
                return None
            rgb = self._decode(self._paths[place % len(self._paths)])
            if rgb is not None:
                return rgb
            self._shift += 1
        self._finish(f"none of the {len(self._paths)} pictures can be read any more")
        return None

    def _decode(self, path: Path) -> np.ndarray | None:
        width, height = self._config.width, self._config.height
        try:
            rgb = compressed_to_rgb("", path.read_bytes(), max(width, height))
        except (InputError, OSError) as error:
            self._unreadable.add(path)
            self._status = replace(
                self._status,
                unreadable=len(self._unreadable),
                detail=f"skipped {path.name}: {error}",
            )
            return None
        return resize_to_fit(rgb, width, height)


class SyntheticCamera(_PacedCamera):
    """The drawn scene; stamps are whole multiples of the period, so two cameras agree."""

    _aligned = True

    def _start(self) -> tuple[float, str]:
        self._scene = SyntheticScene(self._config.width, self._config.height)
        return self._config.rate_hz, "drawn scene"

    def _frame(self, frame: int, stamp_ns: int) -> np.ndarray | None:
        return self._scene.render(stamp_ns)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key under which frame9 comes before frame10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

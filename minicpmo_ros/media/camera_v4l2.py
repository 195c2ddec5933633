"""A V4L2 device through OpenCV: a thread keeps its newest picture and survives an unplug."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.camera import CameraConfig, CameraStatus
from minicpmo_ros.media.opencv import opencv
from minicpmo_ros.media.pacing import Clock
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, Picture

REOPEN_EVERY_S = 1.0

_CAP_PROP_POS_MSEC = 0
_PLAUSIBLE_AGE_NS = NS_PER_S


class Capture(Protocol):
    """What is used of cv2.VideoCapture."""

    def grab(self) -> bool: ...

    def retrieve(self) -> tuple[bool, Any]: ...

    def get(self, prop: int, /) -> float: ...

    def release(self) -> None: ...


OpenCapture = Callable[[CameraConfig], Capture]


class V4l2Camera:
    """A camera of this machine.

    The device is emptied as fast as it delivers, so a slow reader gets the newest picture, never
    one that waited in the driver; only pictures at rate_hz are unpacked (that is where MJPEG
    costs). Stamps are the driver's: the kernel notes the monotonic time of each buffer (for USB
    cameras the start or the end of its transfer, as the driver has it), and its age at arrival is
    taken off the ROS time of arrival. Where that age makes no sense the stamp is the arrival.
    """

    def __init__(
        self,
        config: CameraConfig,
        clock: Clock,
        open_capture: OpenCapture | None = None,
        monotonic_ns: Clock = time.monotonic_ns,
        reopen_every_s: float = REOPEN_EVERY_S,
    ) -> None:
        self._config, self._clock, self._monotonic_ns = config, clock, monotonic_ns
        self._open_capture = open_capture or open_v4l2
        self._reopen_every_s = reopen_every_s
        self._status = CameraStatus(config.source)
        self._changed = threading.Condition()
        self._newest: tuple[int, np.ndarray] | None = None
        self._stop = threading.Event()
        self._worker: threading.Thread | None = None
        self._due_ns = 0

    @property
    def status(self) -> CameraStatus:
        return self._status

    def open(self) -> None:
        """Opens the device and waits for its first picture; raises `DeviceError` without one."""
        self.close()
        self._status = CameraStatus(self._config.source)
        capture = self._open_capture(self._config)
        if not capture.grab():
            capture.release()
            raise DeviceError(
                f"camera {self._config.target} opens but gives no picture: another program may "
                f"hold it, or it does not know {_mode(self._config)}"
            )
        self._stop = threading.Event()
        self._due_ns = 0
        with self._changed:
            self._newest = None
            self._update(working=True, detail="")
        self._worker = threading.Thread(
            target=self._run, args=(capture, self._stop), name="camera", daemon=True
        )
        self._worker.start()

    def read(self, timeout_s: float) -> Picture | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._newest is not None or self._stop.is_set(), timeout_s
            )
            newest, self._newest = self._newest, None
            if newest is None:
                return None
            self._update(pictures=self._status.pictures + 1)
        stamp_ns, bgr = newest
        return Picture(stamp_ns, lambda: _bgr_to_rgb(bgr), self._config.frame_id)

    def close(self) -> None:
        """Ends the thread; a device that hangs in its driver is left to it and freed after."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self._stop.set()
        with self._changed:
            self._newest = None
            self._update(working=False, detail="closed")
            self._changed.notify_all()
        worker.join(timeout=2.0)

    def _run(self, capture: Capture | None, stop: threading.Event) -> None:
        """The thread. It alone calls the capture, which is not safe to share."""
        while not stop.is_set():
            if capture is None:
                if not stop.wait(self._reopen_every_s):
                    capture = self._reopen(stop)
            elif fault := self._step(capture, stop):
                capture.release()
                capture = None
                self._report(stop, working=False, detail=fault)
        if capture is not None:
            capture.release()

    def _step(self, capture: Capture, stop: threading.Event) -> str:
        """Takes one picture; "" or what is wrong with the device."""
        try:
            if not capture.grab():
                return f"camera {self._config.target} is gone or gives no pictures"
            self._take(capture, stop)
        except opencv().error as error:
            return f"camera {self._config.target} failed: {error}"
        return ""

    def _take(self, capture: Capture, stop: threading.Event) -> None:
        stamp_ns = self._stamp_ns(capture)
        if not self._wanted(stamp_ns):
            return
        done, bgr = capture.retrieve()
        # A damaged MJPEG frame, common on a long cable: the next one will do.
        if not done or bgr is None:
            self._report(stop, unreadable=self._status.unreadable + 1)
            return
        with self._changed:
            if stop.is_set():
                return
            status, (height, width) = self._status, bgr.shape[:2]
            dropped = status.dropped + (self._newest is not None)
            reopened = status.reopened + (not status.working)
            self._newest = (stamp_ns, bgr)
            self._update(
                working=True,
                detail="",
                dropped=dropped,
                reopened=reopened,
                width=width,
                height=height,
            )
            self._changed.notify_all()

    def _stamp_ns(self, capture: Capture) -> int:
        arrived_ns, now_ns = self._clock(), self._monotonic_ns()
        age_ns = now_ns - int(capture.get(_CAP_PROP_POS_MSEC) * NS_PER_MS)
        return arrived_ns - age_ns if 0 <= age_ns < _PLAUSIBLE_AGE_NS else arrived_ns

    def _wanted(self, stamp_ns: int) -> bool:
        """Whether this picture is the next one at rate_hz, a quarter of a period's jitter aside."""
        period_ns = int(NS_PER_S / self._config.rate_hz)
        if abs(self._due_ns - stamp_ns) > 2 * period_ns:  # the first one, or the clock jumped
            self._due_ns = stamp_ns
        if stamp_ns + period_ns // 4 < self._due_ns:
            return False
        self._due_ns = max(self._due_ns + period_ns, stamp_ns)
        return True

    def _reopen(self, stop: threading.Event) -> Capture | None:
        self._due_ns = 0
        try:
            return self._open_capture(self._config)
        except DeviceError as error:
            self._report(stop, detail=str(error))
            return None

    def _report(self, stop: threading.Event, **changes: Any) -> None:
        with self._changed:
            # A thread left behind in its driver has nothing to say any more.
            if not stop.is_set():
                self._update(**changes)

    def _update(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)


def open_v4l2(config: CameraConfig) -> Capture:
    """Opens the device in the mode asked for; raises `DeviceError` that says what there is."""
    cv2 = opencv()
    path = Path(config.target)
    if not path.exists():
        raise DeviceError(f"camera {path} does not exist; {_present()}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise DeviceError(
            f"camera {path} may not be read by this user: 'sudo usermod -aG video $USER' and a "
            "new login would allow it"
        )
    capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise DeviceError(
            f"camera {path} cannot be opened: another program holds it, or it is not a capture "
            f"device; {_present()}"
        )
    if config.fourcc:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*config.fourcc))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.height)
    capture.set(cv2.CAP_PROP_FPS, config.rate_hz)
    opened: Capture = capture
    return opened


def video_devices(
    dev: Path = Path("/dev"), names: Path = Path("/sys/class/video4linux")
) -> list[tuple[str, str]]:
    """(path, name) of every V4L2 device of this machine, by number; the name may be empty."""
    paths = sorted(
        (p for p in dev.glob("video*") if p.name[5:].isdecimal()), key=lambda p: int(p.name[5:])
    )
    return [(str(path), _device_name(names / path.name / "name")) for path in paths]


def _device_name(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _present() -> str:
    devices = [f"{path} ({name})" if name else path for path, name in video_devices()]
    if devices:
        return f"there is {', '.join(devices)}"
    return "there is no /dev/video* on this machine (a container needs --device /dev/video0)"


def _mode(config: CameraConfig) -> str:
    return f"{config.width}x{config.height} {config.fourcc}".strip()


def _bgr_to_rgb(bgr: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    rgb: np.ndarray = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb

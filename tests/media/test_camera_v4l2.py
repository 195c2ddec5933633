"""The V4L2 camera with a device made of a queue: newest picture, stamps, unplug and return."""

import queue
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.camera import CameraConfig
from minicpmo_ros.media.camera_v4l2 import V4l2Camera, open_v4l2, video_devices

NS = 1_000_000_000
MS = 1_000_000
ROS_NS = 1_763_000_000 * NS
MONOTONIC_NS = 5_000 * NS
WAIT_S = 20.0
UNPLUG = "unplug"
FAIL = "fail"


class Bench:
    """A machine with one camera: frames are fed, each with its kernel stamp, and it can go away.

    Both clocks stand still while a frame is on its way, so that stamps can be told exactly.
    """

    def __init__(self, rate_hz: float = 10.0) -> None:
        self.config = CameraConfig(source="v4l2:0", rate_hz=rate_hz)
        self.frames: queue.Queue = queue.Queue()
        self.present = True
        self.open_captures = 0
        self.refused = threading.Event()
        self.ros_ns, self.monotonic_ns = ROS_NS, MONOTONIC_NS
        self.camera = V4l2Camera(
            self.config,
            lambda: self.ros_ns,
            self.open_capture,
            lambda: self.monotonic_ns,
            reopen_every_s=0.01,
        )

    def open_capture(self, config):
        if not self.present:
            self.refused.set()
            raise DeviceError("camera /dev/video0 does not exist; there is /dev/video4")
        self.open_captures += 1
        return FakeCapture(self)

    def feed(self, level: int, age_ns: int = 0, broken: bool = False) -> None:
        self.frames.put((level, age_ns, broken))

    def __enter__(self):
        self.feed(0)  # what open() sees
        self.camera.open()
        return self

    def __exit__(self, *_):
        self.frames.put(UNPLUG)
        self.camera.close()
        assert self.open_captures == 0, "a capture was left open"

    def read(self) -> tuple[int, int]:
        """(level, stamp) of the next picture."""
        picture = self.camera.read(WAIT_S)
        assert picture is not None
        rgb = picture.rgb()
        assert tuple(rgb[0, 0]) == (rgb[0, 0, 0], 2, 1), "blue and red are exchanged"
        return int(rgb[0, 0, 0]), picture.stamp_ns

    def advance(self, ns: int) -> None:
        self.ros_ns += ns
        self.monotonic_ns += ns


class FakeCapture:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.frame = None

    def grab(self) -> bool:
        self.frame = self.bench.frames.get(timeout=WAIT_S)
        if self.frame == FAIL:
            raise cv2.error("driver failed")
        return self.frame != UNPLUG

    def retrieve(self):
        level, _, broken = self.frame
        if broken:
            return False, None
        bgr = np.empty((48, 64, 3), np.uint8)
        bgr[:] = (1, 2, level)
        return True, bgr

    def get(self, prop: int) -> float:
        assert prop == cv2.CAP_PROP_POS_MSEC
        return (self.bench.monotonic_ns - self.frame[1]) / MS

    def release(self) -> None:
        self.bench.open_captures -= 1


def test_a_picture_bears_the_time_at_which_the_kernel_had_it():
    with Bench() as bench:
        bench.feed(7, age_ns=40 * MS)
        assert bench.read() == (7, ROS_NS - 40 * MS)
        assert (bench.camera.status.width, bench.camera.status.height) == (64, 48)


@pytest.mark.parametrize("age_ns", [-5 * MS, 2 * NS, MONOTONIC_NS])
def test_a_kernel_stamp_that_makes_no_sense_gives_the_time_of_arrival(age_ns):
    with Bench() as bench:
        bench.feed(7, age_ns=age_ns)
        assert bench.read() == (7, ROS_NS)


def test_a_slow_reader_gets_the_newest_picture_and_the_others_are_counted():
    with Bench(rate_hz=1000.0) as bench:
        # Each stamp is a period later, and a frame is taken only after the one before.
        for i in range(5):
            bench.feed(10 + i, age_ns=(5 - i) * MS)
        wait_until(lambda: bench.camera.status.dropped == 4)
        assert bench.read() == (14, ROS_NS - MS)
        assert bench.camera.read(0.0) is None
        assert bench.camera.status.pictures == 1


def test_a_fast_camera_is_thinned_to_the_rate():
    with Bench(rate_hz=10.0) as bench:
        for i in range(12):
            bench.feed(i, age_ns=500 * MS - i * NS // 30)
        bench.feed(99)
        taken = 1
        while bench.read()[0] != 99:
            taken += 1
        # Of the twelve at 30 Hz every third was unpacked, and then the last one.
        assert bench.camera.status.dropped + taken == 5


def wait_until(condition) -> None:
    ticker = threading.Event()
    for _ in range(int(WAIT_S / 0.01)):
        if condition():
            return
        ticker.wait(0.01)
    raise AssertionError("waited in vain")


def test_unplugged_and_plugged_in_again():
    with Bench() as bench:
        bench.feed(1)
        assert bench.read()[0] == 1
        bench.present = False
        bench.frames.put(UNPLUG)
        wait_until(lambda: not bench.camera.status.working)
        assert bench.refused.wait(WAIT_S)
        wait_until(lambda: "there is /dev/video4" in bench.camera.status.detail)
        assert bench.camera.read(0.0) is None
        bench.present = True
        bench.feed(2)
        assert bench.read()[0] == 2
        status = bench.camera.status
        assert status.working and status.reopened == 1 and status.detail == ""


def test_a_device_that_returns_without_pictures_is_not_counted_as_back():
    with Bench() as bench:
        for _ in range(3):
            bench.frames.put(UNPLUG)
        wait_until(lambda: bench.frames.empty() and not bench.camera.status.working)
        assert bench.camera.status.reopened == 0
        bench.feed(3)
        assert bench.read()[0] == 3
        assert bench.camera.status.reopened == 1


def test_an_error_of_opencv_is_an_unplug_with_its_reason():
    with Bench() as bench:
        bench.present = False
        bench.refused.clear()
        seen = []
        report = bench.camera._report
        bench.camera._report = lambda stop, **c: (seen.append(c.get("detail")), report(stop, **c))
        bench.frames.put(FAIL)
        assert bench.refused.wait(WAIT_S)
        assert "driver failed" in seen[0]
        bench.present = True
        bench.feed(4)
        assert bench.read()[0] == 4


def test_a_damaged_frame_is_counted_and_the_next_one_taken():
    with Bench() as bench:
        bench.feed(0, broken=True, age_ns=100 * MS)
        bench.feed(5)
        assert bench.read()[0] == 5
        assert bench.camera.status.unreadable == 1


def test_closing_ends_a_read_in_another_thread():
    bench = Bench()
    with bench:
        results = []
        reader = threading.Thread(target=lambda: results.append(bench.camera.read(60.0)))
        reader.start()
        bench.frames.put(UNPLUG)
        bench.present = False
        bench.camera.close()
        reader.join(WAIT_S)
        assert results == [None]
    assert not bench.camera.status.working


def test_a_closed_camera_opens_again():
    bench = Bench()
    for level in (1, 2):
        with bench:
            bench.feed(level)
            assert bench.read()[0] == level


def test_a_device_without_a_first_picture_is_refused_and_given_back():
    bench = Bench()
    bench.frames.put(UNPLUG)
    with pytest.raises(DeviceError, match=r"/dev/video0 opens but gives no picture.*640x480"):
        bench.camera.open()
    assert bench.open_captures == 0


def test_a_missing_device_is_named_with_those_there_are(monkeypatch):
    monkeypatch.setattr(
        "minicpmo_ros.media.camera_v4l2.video_devices",
        lambda: [("/dev/video4", "HD Webcam"), ("/dev/video5", "")],
    )
    with pytest.raises(
        DeviceError,
        match=r"/dev/video777 does not exist; there is /dev/video4 \(HD Webcam\), /dev/video5$",
    ):
        V4l2Camera(CameraConfig(source="v4l2:777"), lambda: 0).open()


def test_a_machine_without_cameras_says_so(monkeypatch):
    monkeypatch.setattr("minicpmo_ros.media.camera_v4l2.video_devices", list)
    with pytest.raises(DeviceError, match=r"there is no /dev/video\*"):
        open_v4l2(CameraConfig(source="v4l2:777"))


def test_a_file_that_is_no_camera_is_refused(tmp_path):
    path = tmp_path / "video0"
    path.write_bytes(b"not a device")
    with pytest.raises(DeviceError, match="cannot be opened: another program holds it, or"):
        open_v4l2(CameraConfig(source=f"v4l2:{path}"))


def test_the_device_is_asked_for_the_mode(tmp_path, monkeypatch):
    class Recorder:
        def __init__(self, path, backend):
            self.opened = (path, backend)
            self.asked = {}

        def isOpened(self):
            return True

        def set(self, prop, value):
            self.asked[prop] = value

    monkeypatch.setattr(cv2, "VideoCapture", Recorder)
    path = tmp_path / "video0"
    path.touch()
    config = CameraConfig(source=f"v4l2:{path}", width=1280, height=720, rate_hz=15, fourcc="MJPG")
    capture = open_v4l2(config)
    assert capture.opened == (str(path), cv2.CAP_V4L2)
    # The format first: a device's sizes and rates depend on it.
    assert list(capture.asked.items()) == [
        (cv2.CAP_PROP_FOURCC, int.from_bytes(b"MJPG", "little")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 15),
    ]


def test_a_device_of_another_user_is_refused_with_the_remedy(tmp_path, monkeypatch):
    path = tmp_path / "video0"
    path.touch()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(DeviceError, match="usermod -aG video"):
        open_v4l2(CameraConfig(source=f"v4l2:{path}"))


@pytest.mark.skipif(not Path("/dev/video0").exists(), reason="this machine has no /dev/video0")
def test_a_real_camera_gives_pictures_with_growing_stamps():
    camera = V4l2Camera(CameraConfig(source="v4l2:0"), time.time_ns)
    camera.open()
    try:
        pictures = [camera.read(WAIT_S) for _ in range(3)]
    finally:
        camera.close()
    stamps = [picture.stamp_ns for picture in pictures]
    assert stamps == sorted(set(stamps))
    assert pictures[0].rgb().ndim == 3


def test_the_devices_of_a_machine_are_listed_by_number_with_their_names(tmp_path):
    dev, names = tmp_path / "dev", tmp_path / "sys"
    dev.mkdir()
    for name in ("video10", "video2", "videology", "null"):
        (dev / name).touch()
    (names / "video2").mkdir(parents=True)
    (names / "video2" / "name").write_text("HD Webcam\n")
    assert video_devices(dev, names) == [
        (str(dev / "video2"), "HD Webcam"),
        (str(dev / "video10"), ""),
    ]

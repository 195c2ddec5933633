"""The threads beside the executor: readers of devices, and clocks."""

from __future__ import annotations

import threading

import pytest

from minicpmo_ros.errors import DeviceError
from minicpmo_ros.nodes import reader, run
from minicpmo_ros.nodes.beat import Beat
from minicpmo_ros.nodes.mic import MicNode
from minicpmo_ros.nodes.reader import Reader

PATIENCE_S = 20.0


class Device:
    """Gives what is put on it; whoever reads it can be kept waiting."""

    def __init__(self) -> None:
        self.items: list = []
        self.here = threading.Semaphore(0)
        self.hung = threading.Event()
        self.release = threading.Event()

    def put(self, item) -> None:
        self.items.append(item)
        self.here.release()

    def read(self, timeout_s: float):
        if not self.here.acquire(timeout=timeout_s):
            return None
        item = self.items.pop(0)
        if item == "hang":
            self.hung.set()
            self.release.wait(PATIENCE_S)
        if isinstance(item, Exception):
            raise item
        return item


class Taken(list):
    """Collects on one thread, and lets another wait."""

    def __init__(self) -> None:
        self._more = threading.Condition()

    def __call__(self, *item) -> None:
        with self._more:
            self.append(item if len(item) > 1 else item[0])
            self._more.notify_all()

    def wait_for(self, count: int) -> None:
        with self._more:
            assert self._more.wait_for(lambda: len(self) >= count, PATIENCE_S), list(self)


@pytest.fixture
def device():
    made = Device()
    yield made
    made.release.set()


def test_a_reader_hands_on_what_the_device_gives_and_skips_nothing(device):
    taken, troubles = Taken(), Taken()
    reading = Reader("device", device.read, taken, troubles)
    for item in range(5):
        device.put(item)
    taken.wait_for(5)
    reading.stop()
    assert taken == [0, 1, 2, 3, 4]
    assert troubles == []


def test_errors_of_device_and_taker_are_reported_and_the_reading_goes_on(device):
    troubles, seen = Taken(), Taken()

    def take(item) -> None:
        if item == "poison":
            raise ValueError("cannot be taken")
        seen(item)

    reading = Reader("device", device.read, take, troubles)
    for item in ("first", DeviceError("it was unplugged"), "poison", "last"):
        device.put(item)
    seen.wait_for(2)
    reading.stop()
    assert seen == ["first", "last"]
    assert troubles == [
        ("device", "it was unplugged"),
        ("device", "ValueError: cannot be taken"),
    ]


def test_a_device_that_hangs_does_not_hang_the_node_and_its_late_gift_is_not_taken(
    device, monkeypatch
):
    monkeypatch.setattr(reader, "STOP_S", 0.1)
    taken, troubles = Taken(), Taken()
    reading = Reader("device", device.read, taken, troubles)
    device.put("hang")
    assert device.hung.wait(PATIENCE_S)
    reading.stop()
    assert troubles == [("device", "the device did not answer within 0.1 s of the stop")]
    again = Reader("device", device.read, taken, troubles)
    device.release.set()
    device.put("next")
    taken.wait_for(1)
    again.stop()
    assert taken == ["next"]


def test_what_a_device_raises_because_it_was_closed_is_no_trouble(device):
    troubles = Taken()
    device.put("hang")
    closed: list[Exception] = []

    def read(timeout_s: float):
        device.read(timeout_s)
        closed.append(OSError("bad file descriptor"))
        raise closed[-1]

    reading = Reader("device", read, Taken(), troubles)
    assert device.hung.wait(PATIENCE_S)
    stopping = threading.Thread(target=reading.stop)
    stopping.start()
    assert reading._stop.wait(PATIENCE_S)
    device.release.set()
    stopping.join(PATIENCE_S)
    assert closed
    assert troubles == []


def test_a_beat_calls_again_and_again_until_it_is_stopped():
    beats = Taken()
    beat = Beat("clock", 0.001, lambda: beats(1))
    beats.wait_for(5)
    beat.stop()
    assert not beat._thread.is_alive()


def test_what_a_clock_callback_raises_is_a_trouble_and_the_clock_goes_on(robot):
    node = robot.add(MicNode)
    calls = Taken()

    def callback() -> None:
        calls(1)
        raise RuntimeError("out of step")

    stop = node.every(0.001, callback)
    calls.wait_for(3)
    stop()
    assert node.troubles.counts()["clock"] >= 2


def test_what_a_foreign_callback_raises_is_logged_and_the_loop_goes_on(robot, capfd):
    """As rclpy's own callbacks may: nothing of it ends the process."""
    calls: list[int] = []

    def callback() -> None:
        calls.append(1)
        raise RuntimeError("out of step")

    node = robot.add(MicNode)
    timer = node.create_timer(0.001, callback)
    while len(calls) < 3:
        run._spin_once(robot.executor, 0.1)
    node.destroy_timer(timer)
    assert "RuntimeError: out of step" in capfd.readouterr().err
    assert robot.diagnosis("/mic: node")


def test_a_timer_callback_that_raises_does_not_end_the_others(robot):
    node = robot.add(MicNode)
    calls: list[int] = []

    def callback() -> None:
        calls.append(1)
        raise RuntimeError("out of step")

    stop = node.steadily(0.001, callback)
    robot.until(lambda: len(calls) >= 3, "three calls")
    stop()
    assert node.troubles.counts()["timer"] >= 2
    robot.diagnosis("/mic: troubles", lambda s: "RuntimeError: out of step" in s.message)

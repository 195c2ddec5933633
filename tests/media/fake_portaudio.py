"""A PortAudio whose devices a test plugs in, drives and pulls out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from minicpmo_ros.media import device_stream, devices


@dataclass
class Times:
    """What PortAudio passes to a callback, in s."""

    inputBufferAdcTime: float = 0.0  # noqa: N815
    outputBufferDacTime: float = 0.0  # noqa: N815
    currentTime: float = 0.0  # noqa: N815


class PortAudioError(Exception):
    """(message, code), as in sounddevice."""


class FakeStream:
    """An open stream; the test calls `block` in place of the device."""

    def __init__(self, library: FakePortAudio, kind: str, **asked: Any) -> None:
        device = library.listed[asked["device"]]
        if not device["plugged"]:
            raise PortAudioError("Device unavailable", -9985)
        if asked["channels"] not in device["channels"]:
            raise PortAudioError("Invalid number of channels", -9998)
        if asked["samplerate"] not in device["rates"]:
            raise PortAudioError("Invalid sample rate", -9997)
        self.kind, self.asked, self.library = kind, asked, library
        self.latency = 0.04
        self.frames = 0
        self.running = False
        library.streams.append(self)

    def start(self) -> None:
        self.library.starting()
        self.running = True

    def abort(self) -> None:
        self.running = False

    def close(self) -> None:
        self.running = False

    def unplug(self) -> None:
        """The device is gone: its stream ends."""
        self.library.listed[self.asked["device"]]["plugged"] = False
        self.running = False
        self.asked["finished_callback"]()

    def block(self, data: np.ndarray, at_s: float, flags: object = None) -> np.ndarray:
        """One callback with int16 [frames, channels]; at_s: ADC or DAC time of its first frame."""
        assert self.running
        self.frames += len(data)
        self.asked["callback"](data, len(data), Times(at_s, at_s, at_s + 0.001), flags)
        return data


class FakePortAudio:
    """Stands in for the module sounddevice."""

    PortAudioError = PortAudioError

    def __init__(self) -> None:
        self.listed: list[dict[str, Any]] = []
        self.streams: list[FakeStream] = []
        self.initialised = 0
        # What happens while a stream takes its time to start.
        self.starting: Callable[[], object] = lambda: None

    def plug(self, name: str, channels: tuple[int, ...] = (1,), rates: tuple[int, ...] = ()) -> int:
        self.listed.append(
            {
                "name": name,
                "channels": channels,
                "rates": rates or (16_000, 24_000),
                "plugged": True,
            }
        )
        return len(self.listed) - 1

    def InputStream(self, **asked: Any) -> FakeStream:
        return FakeStream(self, "input", **asked)

    def OutputStream(self, **asked: Any) -> FakeStream:
        return FakeStream(self, "output", **asked)

    def _terminate(self) -> None:
        pass

    def _initialize(self) -> None:
        self.initialised += 1

    def devices(self) -> list[devices.SoundDevice]:
        return [
            devices.SoundDevice(
                index, device["name"], "fake", max(device["channels"]), max(device["channels"]),
                device["rates"][0], index == 0, index == 0,
            )
            for index, device in enumerate(self.listed)
            if device["plugged"]
        ]  # fmt: skip


def install(monkeypatch: pytest.MonkeyPatch) -> FakePortAudio:
    """Put the fake in the place of PortAudio and let watching threads hurry."""
    library = FakePortAudio()
    monkeypatch.setattr(devices, "portaudio", lambda: library)
    monkeypatch.setattr(device_stream, "portaudio", lambda: library)
    monkeypatch.setattr(devices, "list_devices", library.devices)
    monkeypatch.setattr(device_stream, "RESCAN", devices.DeviceRescan(lambda: None))
    monkeypatch.setattr(device_stream, "_CHECK_S", 0.005)
    monkeypatch.setattr(device_stream, "_STALLED_CHECKS", 100)
    return library


def until(happened: Callable[[], object]) -> None:
    """Wait, 5 s at most, for what another thread does."""
    import time

    for _ in range(1000):
        if happened():
            return
        time.sleep(0.005)
    pytest.fail("waited 5 s in vain")

"""One PortAudio stream that outlives its device: unplugged, it waits; plugged in, it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.devices import (
    PORTAUDIO_LOCK,
    RESCAN,
    Kind,
    SoundDevice,
    find_again,
    find_device,
    portaudio,
)

Callback = Callable[[Any, int, Any, Any], None]
"""(int16 [frames, channels], frames, PortAudio times in s, flags), called by the device thread."""

_CHECK_S = 0.2
_CHECKS_A_RETRY = 5
# A PulseAudio stream may take 2 s to start; nothing else is silent for that long.
_STALLED_CHECKS = 15

# PaErrorCode of a device that is there but not in this format.
_BAD_CHANNELS, _BAD_RATE = -9998, -9997


class StreamState(Enum):
    """CLOSED by us, RUNNING, or LOST: the device is gone and is looked for every second."""

    CLOSED = "closed"
    RUNNING = "running"
    LOST = "lost"


@dataclass(frozen=True)
class StreamFormat:
    """What the device agreed to. latency_s as PortAudio reports it; it may be far off."""

    device: SoundDevice
    rate_hz: int
    channels: int
    block: int
    latency_s: float


@dataclass(frozen=True)
class StreamStatus:
    """State of a stream, for diagnostics. reason: why it is lost."""

    state: StreamState = StreamState.CLOSED
    reason: str = ""
    format: StreamFormat | None = None
    reopenings: int = 0


class DeviceStream:
    """Opens a device in the first format that it takes, watches it, and opens it again.

    `start(format)` is called before each opening and returns the callback for that stream: what
    depends on rate and channels is made there. `lost()` is called about five times a second, by
    the watching thread, while there is no device.
    """

    def __init__(
        self,
        kind: Kind,
        device: str | int,
        rates_hz: Sequence[int],
        channels: int,
        block_ms: float,
        latency_ms: float,
        start: Callable[[StreamFormat], Callback],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """rates_hz: in order of preference; the device's own rate is tried last.

        latency_ms: what to ask of the device, 0 for its own default.
        """
        self._kind: Kind = kind
        self._wanted = device
        self._rates_hz = tuple(rates_hz)
        self._channels = channels
        self._block_ms = block_ms
        self._latency_ms = latency_ms
        self._start = start
        self._lost = lost
        self._stream: Any = None
        self._device: SoundDevice | None = None
        self._callbacks = 0
        self._finished = False
        self._status = StreamStatus()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def status(self) -> StreamStatus:
        return self._status

    def open(self) -> None:
        """Start the stream. Raises DeviceError, which says what is wrong and what is there."""
        if self._watcher is not None:
            raise DeviceError(f"the {self._kind} device {self._wanted!r} is open already")
        with PORTAUDIO_LOCK:
            # Something may have been plugged in since PortAudio looked.
            self._look_again()
            self._open_stream(find_device(self._wanted, self._kind))
            _STREAMS.append(self)
        self._status = replace(self._status, reopenings=0)
        self._stop.clear()
        self._watcher = threading.Thread(
            target=self._watch, name=f"sound {self._kind} watch", daemon=True
        )
        self._watcher.start()

    def close(self) -> None:
        """Stop at once; nothing of it runs afterwards. May be called twice."""
        self._stop.set()
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.join()
        with PORTAUDIO_LOCK:
            if self in _STREAMS:
                _STREAMS.remove(self)
            self._close_stream()
        self._status = replace(self._status, state=StreamState.CLOSED, reason="")

    def _open_stream(self, device: SoundDevice) -> None:
        """Open and start in the first format that the device takes. PORTAUDIO_LOCK is held."""
        sounddevice = portaudio()
        stream_class = (
            sounddevice.InputStream if self._kind == "input" else sounddevice.OutputStream
        )
        most = device.channels(self._kind)
        error: Exception | None = None
        for channels in _once(self._channels, 2, most):
            for rate_hz in _once(*self._rates_hz, device.default_rate_hz, 48_000, 44_100):
                if channels > most:
                    continue
                block = max(1, round(rate_hz * self._block_ms / 1000))
                try:
                    self._stream = stream_class(
                        device=device.index,
                        samplerate=rate_hz,
                        channels=channels,
                        dtype="int16",
                        blocksize=block,
                        latency=self._latency_ms / 1000 if self._latency_ms else "high",
                        callback=self._call,
                        finished_callback=self._finish,
                    )
                    wanted = StreamFormat(
                        device, rate_hz, channels, block, float(self._stream.latency)
                    )
                    self._callback = self._start(wanted)
                    self._finished = False
                    self._stream.start()
                except sounddevice.PortAudioError as refusal:
                    self._close_stream()
                    error = refusal
                    code = refusal.args[1] if len(refusal.args) > 1 else 0
                    if code not in (_BAD_CHANNELS, _BAD_RATE):
                        raise DeviceError(self._refused(device, refusal)) from refusal
                    continue
                self._device = device
                self._status = replace(
                    self._status, state=StreamState.RUNNING, reason="", format=wanted
                )
                return
        raise DeviceError(self._refused(device, error)) from error

    def _refused(self, device: SoundDevice, error: Exception | None) -> str:
        detail = error.args[0] if error is not None and error.args else "no format suits it"
        return (
            f"the {self._kind} device [{device.index}] {device.name} cannot be opened with "
            f"{self._channels} channel(s) at {' or '.join(map(str, self._rates_hz))} Hz: {detail}; "
            "is it busy, unplugged or without permission?"
        )

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            # Both ignore PortAudio's errors: of a device that is gone nothing else can be had.
            stream.abort()
            stream.close()

    def _call(self, data: Any, frames: int, time: Any, flags: Any) -> None:
        self._callbacks += 1
        self._callback(data, frames, time, flags)

    def _finish(self) -> None:
        self._finished = True

    def _watch(self) -> None:
        """Notice that the device is gone; try to get it back every second."""
        callbacks, silent, waited = -1, 0, 0
        while not self._stop.wait(_CHECK_S):
            # With the lock, for another stream's search for devices may have put this one aside.
            with PORTAUDIO_LOCK:
                if self._status.state is StreamState.RUNNING:
                    silent = silent + 1 if callbacks == self._callbacks else 0
                    callbacks = self._callbacks
                    if self._finished:
                        self._lose("its stream ended: unplugged, or its sound server stopped")
                    elif silent >= _STALLED_CHECKS:
                        self._lose(f"it has not moved for {_STALLED_CHECKS * _CHECK_S:.0f} s")
                    waited = 0
                    continue
            silent = 0
            waited += 1
            self._lost()
            if waited % _CHECKS_A_RETRY == 0:
                self._try_again()

    def _lose(self, reason: str) -> None:
        self._close_stream()
        name = self._device.name if self._device else str(self._wanted)
        self._status = replace(
            self._status,
            state=StreamState.LOST,
            reason=f"the {self._kind} device {name} is lost: {reason}",
        )

    def _try_again(self) -> None:
        assert self._device is not None
        with PORTAUDIO_LOCK:
            if self._status.state is not StreamState.LOST:
                return
            try:
                self._look_again()
                self._open_stream(find_again(self._wanted, self._kind, self._device))
            except DeviceError as error:
                self._status = replace(self._status, reason=str(error))
            else:
                self._status = replace(self._status, reopenings=self._status.reopenings + 1)

    def _look_again(self) -> None:
        running = [
            (stream._suspend, stream._resume)
            for stream in _STREAMS
            if stream is not self and stream._status.state is StreamState.RUNNING
        ]
        RESCAN.rescan(running)

    def _suspend(self) -> None:
        self._close_stream()

    def _resume(self) -> None:
        assert self._device is not None
        try:
            self._open_stream(find_again(self._wanted, self._kind, self._device))
        except DeviceError as error:
            self._status = replace(self._status, state=StreamState.LOST, reason=str(error))


_STREAMS: list[DeviceStream] = []
"""The streams of this process that are open, each perhaps without its device."""


def _once(*values: int) -> list[int]:
    return list(dict.fromkeys(value for value in values if value > 0))

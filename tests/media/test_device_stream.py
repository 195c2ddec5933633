"""One stream and its device: formats, unplugging and coming back, on a fake PortAudio."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media import device_stream
from minicpmo_ros.media.device_stream import Callback, DeviceStream, StreamFormat, StreamState
from tests.media.fake_portaudio import FakePortAudio, install, until


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePortAudio]:
    yield install(monkeypatch)
    assert device_stream._STREAMS == [], "a test has left a stream open"


class Sound:
    """Counts what a stream's callback gets."""

    def __init__(self) -> None:
        self.formats: list[StreamFormat] = []
        self.frames = 0
        self.lost = 0

    def start(self, stream: StreamFormat) -> Callback:
        self.formats.append(stream)
        return self._callback

    def _callback(self, data: Any, frames: int, time: Any, flags: Any) -> None:
        self.frames += frames

    def miss(self) -> None:
        self.lost += 1


def stream_of(sound: Sound, device: str = "mic", rate_hz: int = 16_000) -> DeviceStream:
    return DeviceStream("input", device, [rate_hz], 1, 20, 40, sound.start, sound.miss)


def test_the_wanted_format_is_taken_where_the_device_does_it(library: FakePortAudio) -> None:
    library.plug("mic")
    sound = Sound()
    stream = stream_of(sound)
    stream.open()
    library.streams[0].block(np.zeros((320, 1), np.int16), 5.0)
    status = stream.status
    stream.close()
    assert (status.state, status.reason) == (StreamState.RUNNING, "")
    assert (sound.formats[0].rate_hz, sound.formats[0].channels, sound.formats[0].block) == (
        16_000, 1, 320,
    )  # fmt: skip
    assert sound.frames == 320


@pytest.mark.parametrize(
    ("channels", "rates", "rate_hz", "opened"),
    [((1,), (44_100,), 44_100, 1), ((2,), (48_000,), 48_000, 2), ((6,), (16_000,), 16_000, 6)],
)
def test_a_device_with_ideas_of_its_own_is_opened_in_its_format(
    library: FakePortAudio,
    channels: tuple[int, ...],
    rates: tuple[int, ...],
    rate_hz: int,
    opened: int,
) -> None:
    library.plug("mic", channels, rates)
    sound = Sound()
    stream = stream_of(sound)
    stream.open()
    stream.close()
    assert (sound.formats[-1].rate_hz, sound.formats[-1].channels) == (rate_hz, opened)


def test_a_device_that_cannot_be_opened_is_an_error_with_the_reason(
    library: FakePortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = library.plug("mic")
    listed = library.devices()
    monkeypatch.setattr(device_stream, "find_device", lambda *_: listed[number])
    library.listed[number]["plugged"] = False
    with pytest.raises(DeviceError, match=r"mic cannot be opened.*16000 Hz: Device unavailable"):
        stream_of(Sound()).open()


def test_an_unplugged_device_is_looked_for_and_goes_on(library: FakePortAudio) -> None:
    number = library.plug("mic")
    sound = Sound()
    stream = stream_of(sound)
    stream.open()
    library.streams[0].unplug()
    until(lambda: stream.status.state is StreamState.LOST)
    until(lambda: sound.lost > 3)
    assert "no input device named 'mic'" in stream.status.reason or "lost" in stream.status.reason
    library.listed[number]["plugged"] = True
    until(lambda: stream.status.state is StreamState.RUNNING)
    assert (stream.status.reopenings, stream.status.reason) == (1, "")
    library.streams[-1].block(np.zeros((320, 1), np.int16), 9.0)
    stream.close()
    assert sound.frames == 320
    assert stream.status.state is StreamState.CLOSED


def test_a_device_that_falls_silent_without_a_word_is_lost_too(
    library: FakePortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_stream, "_STALLED_CHECKS", 5)
    number = library.plug("mic")
    stream = stream_of(Sound())
    stream.open()
    library.listed[number]["plugged"] = False
    until(lambda: stream.status.state is StreamState.LOST)
    stream.close()


def test_looking_for_one_device_leaves_another_alone(library: FakePortAudio) -> None:
    library.plug("well")
    library.plug("ill")
    well, ill = stream_of(Sound(), "well"), stream_of(Sound(), "ill")
    well.open()
    ill.open()
    initialised = library.initialised
    first = library.streams[0]
    library.streams[1].unplug()
    until(lambda: ill.status.state is StreamState.LOST and "no input" in ill.status.reason)
    assert library.initialised == initialised
    assert first.running
    assert well.status.state is StreamState.RUNNING
    well.close()
    ill.close()


def test_new_sound_cards_are_seen_and_the_others_go_on_afterwards(
    library: FakePortAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = ["old"]
    monkeypatch.setattr(device_stream, "RESCAN", device_stream.RESCAN.__class__(lambda: cards[-1]))
    library.plug("well")
    number = library.plug("ill")
    sound = Sound()
    well, ill = stream_of(sound, "well"), stream_of(Sound(), "ill")
    well.open()
    ill.open()
    library.streams[1].unplug()
    until(lambda: ill.status.state is StreamState.LOST)
    library.listed[number]["plugged"] = True
    cards.append("new")
    until(lambda: ill.status.state is StreamState.RUNNING)
    assert library.initialised >= 1
    assert not library.streams[0].running
    running = [stream for stream in library.streams if stream.running]
    assert {stream.asked["device"] for stream in running} == {0, 1}
    assert (well.status.state, well.status.reopenings) == (StreamState.RUNNING, 0)
    well.close()
    ill.close()


def test_a_stream_is_opened_once_and_may_be_closed_twice(library: FakePortAudio) -> None:
    library.plug("mic")
    stream = stream_of(Sound())
    stream.open()
    with pytest.raises(DeviceError, match="open already"):
        stream.open()
    stream.close()
    stream.close()
    stream.open()
    stream.close()

"""How a setting names a sound device, without any device."""

import sys

import pytest

from minicpmo_ros.errors import ConfigError, DeviceError
from minicpmo_ros.media import devices
from minicpmo_ros.media.devices import DeviceRescan, SoundDevice, find_again, find_device

HERE = [
    SoundDevice(0, "HDA Intel PCH: ALC257 (hw:0,0)", "ALSA", 2, 2, 48_000),
    SoundDevice(1, "USB Audio: - (hw:1,0)", "ALSA", 1, 0, 44_100),
    SoundDevice(2, "USB Audio: speaker (hw:2,0)", "ALSA", 0, 2, 48_000),
    SoundDevice(3, "default", "ALSA", 32, 32, 44_100, default_input=True, default_output=True),
    SoundDevice(4, "USB", "ALSA", 1, 1, 16_000),
]


@pytest.mark.parametrize(
    ("wanted", "kind", "index"),
    [
        (1, "input", 1),
        ("1", "input", 1),
        ("", "input", 3),
        ("", "output", 3),
        ("alc257", "input", 0),
        ("USB", "input", 4),  # an exact name, though others contain it
        ("USB Audio", "input", 1),  # of two that contain it only one has inputs
        ("USB Audio", "output", 2),
    ],
)
def test_index_exact_name_and_part_of_a_name_find_a_device(
    wanted: str | int, kind: devices.Kind, index: int
) -> None:
    assert find_device(wanted, kind, HERE).index == index


@pytest.mark.parametrize(
    ("wanted", "kind", "message"),
    [
        ("webcam", "input", r"no input device named 'webcam'; .*\[0\] HDA.*\[4\] USB"),
        (2, "input", "no input device with index 2"),
        (9, "output", "no output device with index 9"),
        ("hw:", "input", r"several .*\[0\] HDA.*\[1\] USB Audio.*whole name or the index"),
    ],
)
def test_a_name_that_finds_none_or_several_lists_what_is_there(
    wanted: str | int, kind: devices.Kind, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        find_device(wanted, kind, HERE)


def test_without_any_device_the_error_says_none() -> None:
    with pytest.raises(DeviceError, match="no default input device; input devices here: none"):
        find_device("", "input", [])


def test_a_kind_of_device_that_is_none_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'microphone'"):
        find_device("", "microphone", HERE)  # type: ignore[arg-type]


def test_a_device_is_found_again_under_another_card_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back = [SoundDevice(0, "other", "ALSA", 1, 0, 48_000)]
    back.append(SoundDevice(5, "USB Audio: - (hw:3,0)", "ALSA", 1, 0, 44_100))
    monkeypatch.setattr(devices, "list_devices", lambda: back)
    # Also where it was given by the index that it had before.
    assert find_again(1, "input", HERE[1]).index == 5
    assert find_again("USB Audio", "input", HERE[1]).index == 5
    with pytest.raises(DeviceError, match="no input device"):
        find_again(0, "input", HERE[0])


def test_of_two_alike_the_one_of_the_same_name_is_found_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    twins = [SoundDevice(k, f"USB Audio: - (hw:{k},0)", "ALSA", 1, 0, 44_100) for k in (7, 1)]
    monkeypatch.setattr(devices, "list_devices", lambda: twins)
    assert find_again(1, "input", HERE[1]).index == 1


def test_without_portaudio_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLibrary:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoLibrary(), *sys.meta_path])
    with pytest.raises(DeviceError, match=r"PortAudio library not found.*libportaudio2"):
        devices.portaudio()


class FakePortAudio:
    PortAudioError = RuntimeError

    def __init__(self) -> None:
        self.calls: list[str] = []

    def _terminate(self) -> None:
        self.calls.append("terminate")

    def _initialize(self) -> None:
        self.calls.append("initialise")


def test_portaudio_looks_again_only_when_the_sound_cards_have_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = FakePortAudio()
    monkeypatch.setattr(devices, "portaudio", lambda: library)
    cards = ["0 [PCH]"]
    search = DeviceRescan(lambda: cards[-1])
    running = [(lambda: library.calls.append("suspend"), lambda: library.calls.append("resume"))]
    assert not search.rescan(running)
    assert library.calls == []
    cards.append("0 [PCH]\n1 [USB]")
    assert search.rescan(running)
    assert library.calls == ["suspend", "terminate", "initialise", "resume"]
    assert not search.rescan([])


def test_where_cards_cannot_be_watched_a_running_stream_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = FakePortAudio()
    monkeypatch.setattr(devices, "portaudio", lambda: library)
    search = DeviceRescan(lambda: None)
    assert not search.rescan([(lambda: None, lambda: None)])
    assert library.calls == []
    assert search.rescan([])
    assert library.calls == ["terminate", "initialise"]

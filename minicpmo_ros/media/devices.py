"""The sound devices of this machine: what PortAudio lists, and how a setting names one of them."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from minicpmo_ros.errors import ConfigError, DeviceError

Kind = Literal["input", "output"]

PORTAUDIO_LOCK = threading.RLock()
"""Held around every call into PortAudio but its callbacks: the library is not thread-safe."""

_ALSA_CARDS = Path("/proc/asound/cards")


@dataclass(frozen=True)
class SoundDevice:
    """A device as PortAudio sees it; inputs and outputs are channel counts, 0 for none."""

    index: int
    name: str
    host_api: str
    inputs: int
    outputs: int
    default_rate_hz: int
    default_input: bool = False
    default_output: bool = False

    def channels(self, kind: Kind) -> int:
        return self.inputs if kind == "input" else self.outputs

    def is_default(self, kind: Kind) -> bool:
        return self.default_input if kind == "input" else self.default_output


def portaudio() -> ModuleType:
    """The sounddevice module. Raises DeviceError where it or PortAudio is not installed."""
    with PORTAUDIO_LOCK:
        try:
            import sounddevice
        except ImportError as error:
            raise DeviceError(
                "the Python package sounddevice is not installed: pip install sounddevice"
            ) from error
        except OSError as error:
            raise DeviceError(
                f"PortAudio cannot be loaded ({error}): install the package libportaudio2 "
                "(sudo apt-get install libportaudio2)"
            ) from error
        return sounddevice


def list_devices() -> list[SoundDevice]:
    """All devices, in PortAudio's order, as they were when the library last looked."""
    sounddevice = portaudio()
    with PORTAUDIO_LOCK:
        try:
            apis = sounddevice.query_hostapis()
            default_input, default_output = sounddevice.default.device
            listed = sounddevice.query_devices()
        except sounddevice.PortAudioError as error:
            raise DeviceError(f"PortAudio cannot list the sound devices: {error}") from error
    return [
        SoundDevice(
            index=index,
            name=entry["name"],
            host_api=apis[entry["hostapi"]]["name"],
            inputs=entry["max_input_channels"],
            outputs=entry["max_output_channels"],
            default_rate_hz=round(entry["default_samplerate"]),
            default_input=index == _default(default_input, apis, "default_input_device"),
            default_output=index == _default(default_output, apis, "default_output_device"),
        )
        for index, entry in enumerate(listed)
    ]


def _default(chosen: int, apis: Sequence[dict], key: str) -> int:
    """PortAudio's default: the one chosen, else that of the first host API that has one."""
    if chosen >= 0:
        return chosen
    return next((api[key] for api in apis if api[key] >= 0), -1)


def find_device(
    name_or_index: str | int, kind: Kind, devices: Sequence[SoundDevice] | None = None
) -> SoundDevice:
    """The input or output device that a setting names.

    An index (also as a string of digits), an exact name, or a part of a name, in any case, that
    only one device has; "" is the default device. Raises DeviceError, which lists what is there.
    """
    if kind not in ("input", "output"):
        raise ConfigError(f"kind of device {kind!r}: must be 'input' or 'output'")
    listed = list_devices() if devices is None else devices
    able = [device for device in listed if device.channels(kind) > 0]
    if isinstance(name_or_index, str) and name_or_index.strip().isdigit():
        name_or_index = int(name_or_index)
    if isinstance(name_or_index, int):
        found = [device for device in able if device.index == name_or_index]
        wanted = f"{kind} device with index {name_or_index}"
    elif not name_or_index:
        found = [device for device in able if device.is_default(kind)][:1]
        wanted = f"default {kind} device"
    else:
        found = [device for device in able if device.name == name_or_index]
        if not found:
            part = name_or_index.casefold()
            found = [device for device in able if part in device.name.casefold()]
        wanted = f"{kind} device named {name_or_index!r}"
    if len(found) == 1:
        return found[0]
    if found:
        raise DeviceError(
            f"several devices answer to the {wanted}: {_names(found)}; "
            "give the whole name or the index"
        )
    raise DeviceError(f"there is no {wanted}; {kind} devices here: {_names(able)}")


def find_again(wanted: str | int, kind: Kind, last: SoundDevice) -> SoundDevice:
    """A device that was unplugged and came back, perhaps under another index or card number.

    wanted is the setting, last the device it named before. Raises DeviceError.
    """
    devices = list_devices()
    named = isinstance(wanted, str) and not wanted.strip().isdigit()
    names: list[str | int] = [wanted] if named else []
    # PortAudio appends the ALSA address, "USB Audio (hw:1,0)", whose number may be another now.
    names += [last.name, re.sub(r"\s*\(hw:\d+,\d+\)$", "", last.name)]
    for name in names[:-1]:
        try:
            return find_device(name, kind, devices)
        except DeviceError:
            continue
    return find_device(names[-1], kind, devices)


def _names(devices: Sequence[SoundDevice]) -> str:
    if not devices:
        return "none"
    return ", ".join(f"[{device.index}] {device.name}" for device in devices)


class DeviceRescan:
    """Makes PortAudio see devices that were plugged in after it started.

    It only looks when it is initialised, and initialising it anew closes every stream of this
    process. So that is done only when the machine's sound cards have changed since, with the
    streams that still run put aside for the moment; where the cards cannot be watched (no ALSA),
    only when no stream runs that would suffer.
    """

    def __init__(self, cards: Callable[[], str | None] | None = None) -> None:
        """cards: fingerprint of the machine's sound cards, None where it cannot be told."""
        self._cards = cards or _alsa_cards
        self._known = self._cards()

    def rescan(self, running: Sequence[tuple[Callable[[], None], Callable[[], None]]]) -> bool:
        """Look again where it may help; running: (suspend, resume) of each stream that is well."""
        sounddevice = portaudio()
        cards = self._cards()
        if cards == self._known and (cards is not None or running):
            return False
        with PORTAUDIO_LOCK:
            for suspend, _ in running:
                suspend()
            try:
                # Raises only where an earlier initialisation failed: then there is nothing to end.
                with suppress(sounddevice.PortAudioError):
                    sounddevice._terminate()
                sounddevice._initialize()
                self._known = cards
            except sounddevice.PortAudioError as error:
                raise DeviceError(f"PortAudio cannot look for sound devices: {error}") from error
            finally:
                for _, resume in running:
                    resume()
        return True


def _alsa_cards() -> str | None:
    try:
        return _ALSA_CARDS.read_text()
    except OSError:
        return None


RESCAN = DeviceRescan()
"""The one of this process; made before PortAudio is first initialised."""

"""libespeak-ng through ctypes: one fresh copy of its state for every use.

The library keeps its state (phase of the voice source, flutter, gain) in global variables from one
utterance to the next, and nothing in its interface resets them: the same text never sounds the same
twice. So it is loaded, used and unloaded again for each utterance, which takes about 2 ms and costs
nothing else; what it depends on stays loaded.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from minicpmo_ros.errors import DeviceError

NAMES = ("libespeak-ng.so.1", "libespeak-ng.so", "libespeak-ng.1.dylib")
PACKAGE_HINT = "install the system package espeak-ng (Debian, Ubuntu: apt-get install espeak-ng)"

# Values of espeak-ng's public header speak_lib.h, the same in versions 1.49 to 1.52.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_PHONEME_EVENTS = 1
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1
POSITION_CHARACTER = 1
STATUS_OK = 0
EVENT_LIST_TERMINATED = 0
EVENT_WORD = 1
EVENT_END = 5
EVENT_PHONEME = 7
PARAMETER_RATE = 1
PARAMETER_VOLUME = 2
PARAMETER_PITCH = 3
PARAMETER_RANGE = 4

# The state is global to the process: one utterance at a time, whoever speaks it.
_LOCK = threading.Lock()
_KEPT: list[ctypes.CDLL] = []


class _EventId(ctypes.Union):
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        # Not a plain string: a priority byte before each tag, a zero byte after the last one.
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class EspeakVoice:
    """A voice that is installed: its tags ("en-us"), name ("English (America)") and file."""

    tags: tuple[str, ...]
    name: str
    file: str


@dataclass(frozen=True)
class EspeakEvent:
    """Where in the sound (samples) a place of the text (characters from 0) begins or ends.

    mnemonic: espeak-ng's name of the phoneme, of phoneme events.
    """

    kind: int
    character: int
    sample: int
    mnemonic: str = ""


@dataclass
class Synthesis:
    """What one call gave: int16 PCM bytes at the library's rate, and its events in order."""

    pcm: bytearray = field(default_factory=bytearray)
    events: list[EspeakEvent] = field(default_factory=list)


class EspeakLibrary:
    """The library, open and in its initial state. Made by `fresh_library`, gone when that ends."""

    def __init__(self, handle: ctypes.CDLL, rate_hz: int) -> None:
        self._library = handle
        self.rate_hz = rate_hz

    @property
    def data_path(self) -> str:
        """The folder espeak-ng-data that is in use."""
        path = ctypes.c_char_p()
        self._library.espeak_Info(ctypes.byref(path))
        return (path.value or b"").decode(errors="replace")

    def set_voice(self, name: str) -> bool:
        """Select a voice by tag, name or file, with "+variant" if wanted. False: there is none."""
        return int(self._library.espeak_SetVoiceByName(name.encode())) == STATUS_OK

    def set_parameter(self, parameter: int, value: int) -> None:
        self._library.espeak_SetParameter(parameter, value, 0)

    def voices(self, tag: str = "") -> list[EspeakVoice]:
        """The installed voices; tag "variant" gives the variants instead."""
        found = []
        language = ctypes.create_string_buffer(tag.encode()) if tag else None
        wanted = _Voice(languages=ctypes.addressof(language)) if language else None
        self._library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        listed = self._library.espeak_ListVoices(ctypes.byref(wanted) if wanted else None)
        for pointer in listed:
            if not pointer:
                break
            voice = pointer.contents
            name = (voice.name or b"").decode(errors="replace")
            file = (voice.identifier or b"").decode(errors="replace")
            found.append(EspeakVoice(_tags(voice.languages), name, file))
        return found

    def synthesise(self, text: str) -> Synthesis:
        """Speak plain text (no markup, no control characters)."""
        result = Synthesis()

        def take(samples, count, events) -> int:  # type: ignore[no-untyped-def]
            # An exception cannot pass through C: nothing in here may raise.
            if samples and count > 0:
                result.pcm += ctypes.string_at(samples, 2 * count)
            for event in events:
                if event.type == EVENT_LIST_TERMINATED:
                    break
                name = event.id.string if event.type == EVENT_PHONEME else b""
                result.events.append(
                    EspeakEvent(
                        event.type,
                        max(event.text_position - 1, 0),
                        event.sample,
                        name.decode(errors="replace"),
                    )
                )
            return 0

        callback = _Callback(take)
        self._library.espeak_SetSynthCallback(callback)
        encoded = text.encode()
        status = self._library.espeak_Synth(
            ctypes.c_char_p(encoded),
            ctypes.c_size_t(len(encoded) + 1),
            ctypes.c_uint(0),
            ctypes.c_int(POSITION_CHARACTER),
            ctypes.c_uint(0),
            ctypes.c_uint(CHARS_UTF8),
            None,
            None,
        )
        if status != STATUS_OK:
            raise DeviceError(f"libespeak-ng could not speak {len(text)} characters: {status}")
        return result


def _tags(address: int | None) -> tuple[str, ...]:
    tags = []
    while address and ctypes.string_at(address, 1) != b"\0":
        tag = ctypes.string_at(address + 1)
        tags.append(tag.decode(errors="replace"))
        address += len(tag) + 2
    return tuple(tags)


@contextmanager
def fresh_library(
    path: str = "", *, phonemes: bool = False, data: str = ""
) -> Iterator[EspeakLibrary]:
    """Load libespeak-ng (path: another file than the system's), and unload it afterwards.

    phonemes: events for phonemes, too. data: a folder with another espeak-ng-data than the
    system's, which is taken where there is none in it.

    Raises `DeviceError` where the library or its data are not installed.
    """
    with _LOCK:
        handle = _load(path)
        try:
            options = INITIALIZE_DONT_EXIT | (INITIALIZE_PHONEME_EVENTS if phonemes else 0)
            folder = data.encode() if data else None
            rate_hz = int(handle.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, folder, options))
            if rate_hz <= 0:
                raise DeviceError(f"libespeak-ng finds no voice data; {PACKAGE_HINT}")
            # The noise of breathy voices comes from the C library's random numbers.
            ctypes.CDLL(None).srand(1)
            try:
                yield EspeakLibrary(handle, rate_hz)
            finally:
                handle.espeak_Terminate()
        finally:
            _unload(handle)


def _load(path: str) -> ctypes.CDLL:
    if not _KEPT:
        # Sound drivers that libespeak-ng is linked to and that we never use. They and their many
        # dependencies stay, so that only libespeak-ng itself comes and goes.
        for name in ("libpcaudio.so.0", "libsonic.so.0"):
            try:
                _KEPT.append(ctypes.CDLL(name))
            except OSError:
                continue
    reasons = []
    for name in (path,) if path else NAMES:
        held = _is_loaded(name)
        try:
            handle = ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
            continue
        return _private_copy(handle) if held else handle
    raise DeviceError(f"libespeak-ng cannot be loaded ({reasons[0]}); {PACKAGE_HINT}")


def _is_loaded(name: str) -> bool:
    try:
        _unload(ctypes.CDLL(name, os.RTLD_NOLOAD | os.RTLD_LAZY))
    except OSError:
        return False
    return True


def _private_copy(handle: ctypes.CDLL) -> ctypes.CDLL:
    """A second instance, for a process in which somebody else holds the library.

    Theirs keeps its state when we close it, and version 1.51 hangs when it is initialised again.
    """
    code = ctypes.cast(handle.espeak_Initialize, ctypes.c_void_p).value or 0
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                first, _, last = line.split()[0].partition("-")
                if int(first, 16) <= code < int(last, 16):
                    return _load_copy(Path(line.split(maxsplit=5)[5].strip()))
        raise DeviceError("libespeak-ng is in use by another part of this process")
    finally:
        _unload(handle)


def _load_copy(file: Path) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        return ctypes.CDLL(str(shutil.copy(file, folder)))


def _unload(handle: ctypes.CDLL) -> None:
    close = ctypes.CDLL(None).dlclose
    close.argtypes = [ctypes.c_void_p]
    close(handle._handle)

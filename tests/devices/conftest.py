"""Real PortAudio devices without hardware: a sound server of our own with null sinks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.devices.pulse import PulseServer, Room, missing


def _restart_portaudio() -> None:
    """PortAudio reads ALSA's configuration when it starts, and other tests may have started it."""
    import sounddevice

    sounddevice._terminate()
    sounddevice._initialize()


@pytest.fixture(scope="session")
def pulse() -> Iterator[PulseServer]:
    """The server, with devices robot_mic and robot_speaker that PortAudio of this process sees."""
    lacking = missing()
    if lacking:
        if os.environ.get("CI") == "true":
            pytest.fail(lacking)
        pytest.skip(lacking)
    # Not pytest's own folder: the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="sound") as folder:
        server = PulseServer(Path(folder))
        before = {name: os.environ.get(name) for name in server.environment}
        os.environ.update(server.environment)
        try:
            server.start()
            _restart_portaudio()
            yield server
        finally:
            server.stop()
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            _restart_portaudio()


@pytest.fixture
def room(pulse: PulseServer) -> Iterator[Room]:
    """A room whose echo `open(delay_ms, volume)` starts."""
    made = Room(pulse)
    yield made
    made.close()

"""A sound server of our own, with a virtual microphone, a virtual speaker, and air between them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

PACKAGES = "pulseaudio pulseaudio-utils libasound2-plugins libportaudio2"
MIC_RATE_HZ = 16_000
SPEAKER_RATE_HZ = 24_000

# Rates are those of our streams: the server converts nothing, and samples stay what they are.
_MODULES = (
    f"module-null-sink sink_name=robot_speaker rate={SPEAKER_RATE_HZ} channels=1",
    f"module-null-sink sink_name=mic_feed rate={MIC_RATE_HZ} channels=1",
    "module-remap-source source_name=robot_mic master=mic_feed.monitor",
)
_PCM = """
pcm.{name} {{
    type pulse
    device {name}
    hint {{ show on description "{name}" }}
}}
"""


def missing() -> str:
    """What the virtual devices lack on this machine; empty if nothing."""
    lacking = [
        tool for tool in ("pulseaudio", "pactl", "parec", "paplay") if not shutil.which(tool)
    ]
    plugins = list(Path("/usr/lib").glob("**/alsa-lib/libasound_module_pcm_pulse.so"))
    if not plugins:
        lacking.append("libasound_module_pcm_pulse.so")
    try:
        import sounddevice  # noqa: F401
    except (ImportError, OSError) as error:
        lacking.append(str(error))
    return f"no {', '.join(lacking)}: sudo apt-get install {PACKAGES}" if lacking else ""


def wait_for(what: str, happened: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Poll; fails with `what` when it does not happen."""
    end = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < end, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.01)


class PulseServer:
    """PulseAudio in a folder of its own: nothing of the user's is read, written or played to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemon: subprocess.Popen[bytes] | None = None
        self._readers: list[subprocess.Popen[bytes]] = []
        (folder / "client.conf").write_text("autospawn = no\n")
        pcms = "".join(_PCM.format(name=name) for name in ("robot_mic", "robot_speaker"))
        (folder / "asound.conf").write_text(pcms)

    @property
    def environment(self) -> dict[str, str]:
        """What clients, PortAudio in this process among them, need to find this server."""
        return {
            "PULSE_SERVER": f"unix:{self.folder}/native",
            "PULSE_CLIENTCONFIG": f"{self.folder}/client.conf",
            "PULSE_COOKIE": f"{self.folder}/cookie",
            "PULSE_RUNTIME_PATH": str(self.folder),
            "ALSA_CONFIG_PATH": f"/usr/share/alsa/alsa.conf:{self.folder}/asound.conf",
        }

    def start(self) -> None:
        (self.folder / "native").unlink(missing_ok=True)
        modules = [f"module-native-protocol-unix socket={self.folder}/native auth-anonymous=1"]
        modules += _MODULES
        log = (self.folder / "pulse.log").open("ab")
        self._daemon = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
            + [word for module in modules for word in ("-L", module)],
            env={
                **os.environ,
                **self.environment,
                "HOME": str(self.folder),
                "XDG_RUNTIME_DIR": str(self.folder),
            },
            stdout=log,
            stderr=log,
        )
        log.close()
        wait_for(f"PulseAudio; see {self.folder}/pulse.log", self._answers)
        # Streams start late where nobody reads a monitor already.
        self._readers = [
            self._parec(source, subprocess.DEVNULL)
            for source in ("robot_speaker.monitor", "robot_mic")
        ]

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End the server; with SIGKILL, as if it had crashed."""
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            daemon.send_signal(how)
            daemon.wait(10)
        for reader in self._readers:
            reader.terminate()
            reader.wait(10)
        self._readers = []

    def pactl(self, *words: str) -> str:
        return subprocess.run(
            ["pactl", *words], env={**os.environ, **self.environment}, check=True, text=True,
            capture_output=True, timeout=10,
        ).stdout.strip()  # fmt: skip

    def speak(self, samples: np.ndarray, rate_hz: int = MIC_RATE_HZ) -> tuple[int, int]:
        """Play int16 samples into the virtual microphone and wait for their end.

        Returns the time just before and just after, in ns.
        """
        path = self.folder / "spoken.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate_hz)
            file.writeframes(samples.astype("<i2").tobytes())
        before_ns = time.time_ns()
        subprocess.run(
            ["paplay", "-d", "mic_feed", "--latency-msec=2000", str(path)],
            env={**os.environ, **self.environment}, check=True, timeout=60,
        )  # fmt: skip
        return before_ns, time.time_ns()

    @contextmanager
    def recording(self) -> Iterator[Callable[[], np.ndarray]]:
        """Record what the virtual speaker plays; call the value for int16 [samples] so far."""
        path = self.folder / "recorded.raw"
        with path.open("wb") as file:
            recorder = self._parec("robot_speaker.monitor", file)
        try:
            wait_for("the recorder", lambda: path.stat().st_size > 0)
            yield lambda: np.frombuffer(path.read_bytes()[: path.stat().st_size // 2 * 2], "<i2")
        finally:
            recorder.terminate()
            recorder.wait(10)

    def _parec(self, source: str, target: object) -> subprocess.Popen[bytes]:
        rate_hz = MIC_RATE_HZ if source == "robot_mic" else SPEAKER_RATE_HZ
        return subprocess.Popen(
            ["parec", "-d", source, "--raw", "--latency-msec=10", "--format=s16le",
             "--channels=1", f"--rate={rate_hz}"],
            env={**os.environ, **self.environment},
            stdout=target,  # type: ignore[arg-type]
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _answers(self) -> bool:
        assert self._daemon is not None
        assert self._daemon.poll() is None, "PulseAudio has ended"
        listed = subprocess.run(
            ["pactl", "list", "short", "sources"], env={**os.environ, **self.environment},
            text=True, capture_output=True, timeout=10,
        ).stdout  # fmt: skip
        return "robot_mic" in listed


class Room:
    """The air between the robot's speaker and its microphone: an echo of a known delay."""

    def __init__(self, server: PulseServer) -> None:
        self._server = server
        self._module = ""

    def open(self, delay_ms: int = 40, volume: float = 0.5) -> None:
        """From now on the microphone hears the speaker, later by about delay_ms and softer."""
        self._module = self._server.pactl(
            "load-module", "module-loopback", "source=robot_speaker.monitor", "sink=mic_feed",
            f"latency_msec={delay_ms}", "source_dont_move=true", "sink_dont_move=true",
        )  # fmt: skip
        inputs = self._server.pactl("list", "short", "sink-inputs").split("\n")
        newest = inputs[-1].split("\t")[0]
        self._server.pactl("set-sink-input-volume", newest, f"{round(volume * 65536)}")

    def close(self) -> None:
        if self._module:
            self._server.pactl("unload-module", self._module)
            self._module = ""

"""The live half of `minicpmo bench ros`: the real nodes in one process, in real time.

A wav of the demo's conversation is the microphone (100 ms chunks, with echo cancellation and noise
suppression), a drawn scene the camera (VGA at 10 Hz, raw), so voice detector, brain and speech
synthesiser have their work. First they are left alone for the time that is measured; then a client
in this process makes the robot speak and interrupts it.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from minicpmo_ros.bench.process import MeasuredProcess, machine_s, wait_until
from minicpmo_ros.bench.trace import Rows
from minicpmo_ros.errors import MinicpmoError
from minicpmo_ros.messages import MIC_RATE_HZ, NS_PER_S
from minicpmo_ros.replay.progress import progress_bar

PICTURE_HZ = 10
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 5.0
FAILED = "failed: "  # what the stack's words of trouble begin with
ROWS_PER_S = 200  # recorded: about 70


@dataclass(frozen=True)
class Setting:
    """What is measured. speaker, microphone: on PortAudio devices, or clock and file."""

    seconds: float
    speaker: bool = False
    microphone: bool = False

    def __post_init__(self) -> None:
        if not 1.0 <= self.seconds <= 36_000.0:
            raise MinicpmoError(f"--seconds {self.seconds:g}: must be 1 to 36000")

    @property
    def warm_up_s(self) -> float:
        return min(5.0, self.seconds / 2)

    @property
    def interruptions(self) -> int:
        return round(min(40.0, max(3.0, self.seconds / 2)))

    def parameters(self, wav: Path) -> dict[str, dict[str, object]]:
        mic = {"source": "device"} if self.microphone else {"source": f"file:{wav}", "loop": True}
        return {
            "camera": {
                "source": "synthetic",
                "width": 640,
                "height": 480,
                "rate_hz": float(PICTURE_HZ),
            },
            "mic": {**mic, "echo_cancellation": "on", "noise_suppression": True},
            "omni": {"brain": "reflex", "image_transport": "raw"},
            "speaker": {"sink": "device" if self.speaker else "clock"},
        }


@dataclass(frozen=True)
class Measured:
    """What came of a run. [from_ns, to_ns): the steady part; calls: interruptions by turn.

    cpu_percent: of a core; others_percent: of all cores, by every other process of the machine.
    """

    rows: Rows
    from_ns: int
    to_ns: int
    calls: dict[int, int]
    cpu_percent: float
    others_percent: float
    memory_mb: float
    grown_mb: float


def run_stack(setting: Setting, folder: Path) -> Measured:
    """Run the stack and measure it. Raises MinicpmoError with the reason when it does not start."""
    import soundfile

    from minicpmo_ros.bench.interrupter import Interrupter
    from minicpmo_ros.replay.scene import scene_sound

    wav, trace, settings = folder / "mic.wav", folder / "trace.npy", folder / "stack.json"
    soundfile.write(wav, scene_sound()[0], MIC_RATE_HZ)
    namespace = f"/bench_{os.getpid()}"  # a robot's own stack may run beside this
    whole_s = setting.seconds + 10 * setting.interruptions + 60
    settings.write_text(
        json.dumps(
            {
                "namespace": namespace,
                "parameters": setting.parameters(wav),
                "capacity": round(whole_s * ROWS_PER_S),
                "trace": str(trace),
            }
        )
    )
    log = folder / "stack.log"
    with MeasuredProcess("minicpmo_ros.bench.stack", [str(settings)], log) as stack:
        _wait_until_active(stack)
        with progress_bar("live", setting.warm_up_s + setting.seconds) as progress:
            began_s = time.monotonic()
            for _ in wait_until(began_s + setting.warm_up_s, stack):
                progress(time.monotonic() - began_s)
            from_ns, memory_mb = time.time_ns(), stack.memory_mb()
            cpu_s, all_s = stack.cpu_s(), machine_s()
            for _ in wait_until(began_s + setting.warm_up_s + setting.seconds, stack):
                progress(time.monotonic() - began_s)
            to_ns = time.time_ns()
            cpu_s, all_s = stack.cpu_s() - cpu_s, machine_s() - all_s
            last_mb = stack.memory_mb()
        with (
            progress_bar("interruptions", setting.interruptions) as progress,
            Interrupter(namespace) as interrupter,
        ):
            calls = interrupter.interrupt_often(setting.interruptions, progress)
        stack.end()
        for line in stack.lines(END_TIMEOUT_S):
            if line.startswith(FAILED):
                raise MinicpmoError(line.removeprefix(FAILED))
    percent = 100.0 * NS_PER_S / (to_ns - from_ns)
    return Measured(
        Rows.load(trace),
        from_ns,
        to_ns,
        calls,
        cpu_s * percent,
        max(0.0, all_s - cpu_s) * percent / (os.cpu_count() or 1),
        last_mb,
        last_mb - memory_mb,
    )


def _wait_until_active(stack: MeasuredProcess) -> None:
    line = stack.line(START_TIMEOUT_S)
    if line is None:
        stack.end()
        raise MinicpmoError(f"the stack ended before it was active; {stack.last_words()}")
    if line != "active":
        raise MinicpmoError(line.removeprefix(FAILED))

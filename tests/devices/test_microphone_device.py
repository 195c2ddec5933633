"""The microphone on a real PortAudio device."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from minicpmo_ros.errors import DeviceError
from minicpmo_ros.media.devices import find_device, list_devices
from minicpmo_ros.media.microphone import MicConfig, Microphone, make_microphone
from minicpmo_ros.media.resample import resample
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, AudioChunk
from tests.devices.pulse import PulseServer
from tests.devices.sound import gaps, joined, noise, place, stamp_of

# A machine that is busy with other tests must not lose samples; delay costs nothing here.
PATIENT_MS = 300


class Listener:
    """Reads a microphone in a thread, as the node does."""

    def __init__(self, config: MicConfig) -> None:
        self.microphone: Microphone = make_microphone(config, time.time_ns)
        self.chunks: list[AudioChunk] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Listener:
        self.microphone.open()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.microphone.close()

    def _read(self) -> None:
        while not self._over.is_set():
            chunk = self.microphone.read(0.1)
            if chunk is not None:
                self.chunks.append(chunk)

    def wait(self, count: int) -> None:
        """Until so many more chunks have come."""
        enough = len(self.chunks) + count
        for _ in range(1000):
            if len(self.chunks) >= enough:
                return
            time.sleep(0.01)
        pytest.fail(f"no {count} chunks in 10 s: {self.microphone.status}")


def test_devices_are_listed_and_found_by_name_part_and_index(pulse: PulseServer) -> None:
    device = find_device("robot_mic", "input")
    assert device in list_devices()
    assert find_device("OBOT_M", "input") == device
    assert find_device(device.index, "input") == device
    assert find_device(str(device.index), "input") == device


def test_an_unknown_device_is_an_error_that_lists_the_known_ones(pulse: PulseServer) -> None:
    microphone = make_microphone(MicConfig(device="no such thing"), time.time_ns)
    with pytest.raises(DeviceError, match=r"no such thing.*robot_mic"):
        microphone.open()
    assert microphone.status.state == "closed"


def test_sound_arrives_sample_exact_and_with_its_time(pulse: PulseServer) -> None:
    spoken = noise(1.5)
    with Listener(MicConfig(device="robot_mic", latency_ms=PATIENT_MS)) as listener:
        listener.wait(15)
        before_ns, after_ns = pulse.speak(spoken)
        listener.wait(8)
    heard = joined(listener.chunks)
    first = place(spoken, heard)
    assert not heard[:first].any()
    assert not heard[first + len(spoken) :].any()
    # A stamp that is corrected is one that is admitted.
    assert gaps(listener.chunks) <= listener.microphone.status.jumps
    first_ns = stamp_of(listener.chunks, first)
    # It sounded after paplay was started, and as long before its end as it takes to play: as far
    # as the latency that the sound server reports is true, which wanders by tens of ms.
    slack_ns = 300 * NS_PER_MS
    assert before_ns - slack_ns < first_ns
    assert first_ns < after_ns - round(1.5 * NS_PER_S) + slack_ns


def test_a_device_of_another_rate_is_resampled(pulse: PulseServer) -> None:
    """At 48 kHz the server triples the rate and we divide it again: the sound stays the same."""
    time_s = np.arange(16_000) / 16_000
    spoken = (8_000 * np.sin(2 * np.pi * (200 + 1_000 * time_s) * time_s)).astype(np.int16)
    config = MicConfig(device="robot_mic", device_rate_hz=48_000, latency_ms=PATIENT_MS)
    with Listener(config) as listener:
        listener.wait(5)
        pulse.speak(spoken)
        listener.wait(8)
        assert listener.microphone.status.rate_hz == 48_000
    # The two filters may shift it by a part of a sample: compare at twelve times the rate.
    fine = 12
    spoken_fine = resample(spoken, 16_000, 16_000 * fine).astype(np.float64)
    samples = joined(listener.chunks)
    coarse = int(np.argmax(np.correlate(samples.astype(float), spoken.astype(float))))
    heard = resample(samples[coarse - 10 :], 16_000, 16_000 * fine).astype(np.float64)
    errors = [
        np.std(heard[shift : shift + len(spoken_fine)] - spoken_fine) for shift in range(20 * fine)
    ]
    assert min(errors) < 0.03 * np.std(spoken_fine)


@pytest.mark.parametrize("chunk_ms", [20, 250])
def test_chunks_have_the_length_asked_for_and_are_numbered(
    pulse: PulseServer, chunk_ms: int
) -> None:
    with Listener(MicConfig(device="robot_mic", chunk_ms=chunk_ms)) as listener:
        listener.wait(5)
    assert {len(chunk.data) for chunk in listener.chunks} == {16 * chunk_ms}
    assert [chunk.sequence for chunk in listener.chunks] == list(range(len(listener.chunks)))


def test_a_sound_server_that_dies_and_returns_is_survived(pulse: PulseServer) -> None:
    with Listener(MicConfig(device="robot_mic", latency_ms=PATIENT_MS)) as listener:
        listener.wait(8)
        pulse.stop(how=9)
        for _ in range(500):
            if listener.microphone.status.problem:
                break
            time.sleep(0.01)
        status = listener.microphone.status
        assert status.state == "lost"
        assert "robot_mic" in status.problem
        time.sleep(0.3)
        before = len(listener.chunks)
        away_ns = time.time_ns()
        pulse.start()
        listener.wait(15)
        spoken = noise(0.5)
        back = len(listener.chunks)
        before_ns, after_ns = pulse.speak(spoken)
        listener.wait(8)
        status = listener.microphone.status
    assert (status.problem, status.state, status.reopenings) == ("", "running", 1)
    # Nothing of the time without a device is made up, and what is new is stamped as new.
    assert listener.chunks[before].stamp_ns > away_ns - NS_PER_S
    heard = joined(listener.chunks[back - 2 :])
    first = place(spoken, heard)
    skipped = sum(len(chunk.data) for chunk in listener.chunks[: back - 2])
    first_ns = stamp_of(listener.chunks, skipped + first)
    assert before_ns - 300 * NS_PER_MS < first_ns < after_ns


def test_close_ends_a_read_that_waits(pulse: PulseServer) -> None:
    microphone = make_microphone(MicConfig(device="robot_mic", chunk_ms=1000), time.time_ns)
    microphone.open()
    closing = threading.Timer(0.2, microphone.close)
    closing.start()
    assert microphone.read(30.0) is None
    closing.join()

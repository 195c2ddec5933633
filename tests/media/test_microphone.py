"""Microphones: settings, files and silence at the pace of a clock, devices on a fake PortAudio."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError, InputError
from minicpmo_ros.media.microphone import MicConfig, Microphone, make_microphone, mono
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, AudioChunk
from tests.media.fake_portaudio import FakePortAudio, install, until

T0 = 1_700_000_000 * NS_PER_S


class Clock:
    def __init__(self, now_ns: int = T0) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def tone(rate_hz: int, seconds: float, hz: float = 300.0) -> np.ndarray:
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.rint(9_000 * np.sin(2 * np.pi * hz * time_s)).astype(np.int16)


def listen(
    microphone: Microphone, clock: Clock, seconds: float, step_ms: int = 100
) -> list[AudioChunk]:
    """Let the clock run in steps; all chunks that come."""
    chunks = []
    for _ in range(round(seconds * 1000 / step_ms)):
        clock.now_ns += step_ms * NS_PER_MS
        while (chunk := microphone.read(0.0)) is not None:
            chunks.append(chunk)
    return chunks


def open_file(
    path: Path, samples: np.ndarray, rate_hz: int, clock: Clock, **fields: object
) -> Microphone:
    soundfile.write(path, samples, rate_hz)
    config = MicConfig(source=f"file:{path}", **fields)  # type: ignore[arg-type]
    microphone = make_microphone(config, clock)
    microphone.open()
    microphone.read(0.0)  # the clock starts to count
    return microphone


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "loud"}, "source 'loud': must be device, silence or file:PATH"),
        ({"source": "file:"}, "source 'file:'"),
        ({"chunk_ms": 5}, "chunk_ms 5: must be 10 to 1000 ms"),
        ({"chunk_ms": 1001}, "chunk_ms 1001"),
        ({"chunk_ms": "100"}, "chunk_ms 100"),
        ({"rate_hz": 0}, "rate_hz 0: must be 4000 to 192000 Hz"),
        ({"latency_correction_ms": float("nan")}, "latency_correction_ms nan"),
        ({"channels": 2, "channel": 2}, "channel 2: must be -1 .* 2 opened"),
        ({"gain_db": 90.0}, "gain_db 90.0: must be -40.0 to 40.0 dB"),
    ],
)
def test_a_setting_that_cannot_be_is_named(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MicConfig(**fields)


def test_silence_comes_at_the_pace_of_the_clock() -> None:
    clock = Clock()
    microphone = make_microphone(MicConfig(source="silence"), clock)
    microphone.open()
    assert microphone.read(0.0) is None
    clock.now_ns += 99 * NS_PER_MS
    assert microphone.read(0.0) is None
    clock.now_ns += NS_PER_MS
    chunk = microphone.read(0.0)
    assert chunk is not None
    assert (chunk.stamp_ns, len(chunk.data), chunk.sample_rate) == (T0, 1_600, 16_000)
    assert not chunk.data.any()
    assert microphone.read(0.0) is None
    assert len(listen(microphone, clock, 2.0, step_ms=370)) == 18


def test_simulated_time_that_has_not_begun_is_waited_for() -> None:
    clock = Clock(0)
    microphone = make_microphone(MicConfig(source="silence"), clock)
    microphone.open()
    assert microphone.read(0.02) is None
    clock.now_ns = T0
    assert microphone.read(0.0) is None
    assert listen(microphone, clock, 0.1)[0].stamp_ns == T0


@pytest.mark.parametrize("jump_s", [3_600, -3_600])
def test_a_clock_that_is_set_makes_a_jump_and_no_flood(jump_s: int) -> None:
    clock = Clock()
    microphone = make_microphone(MicConfig(source="silence"), clock)
    microphone.open()
    microphone.read(0.0)
    listen(microphone, clock, 1.0)
    clock.now_ns += jump_s * NS_PER_S
    chunks = listen(microphone, clock, 1.0)
    assert len(chunks) in (10, 11)
    assert all(clock.now_ns - 1.2 * NS_PER_S <= chunk.stamp_ns for chunk in chunks)
    assert microphone.status.jumps == 1


def test_a_file_is_heard_sample_by_sample(tmp_path: Path) -> None:
    clock = Clock()
    samples = np.random.default_rng(1).integers(-32768, 32767, 24_321).astype(np.int16)
    microphone = open_file(tmp_path / "a.wav", samples, 16_000, clock)
    chunks = listen(microphone, clock, 2.0)
    np.testing.assert_array_equal(np.concatenate([chunk.data for chunk in chunks]), samples)
    assert [chunk.stamp_ns for chunk in chunks] == [T0 + k * 100 * NS_PER_MS for k in range(16)]
    assert [chunk.sequence for chunk in chunks] == list(range(16))
    assert microphone.status.state == "ended"
    microphone.close()
    assert microphone.read(0.0) is None


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_files_of_any_kind_and_rate_are_heard_at_16_khz(
    tmp_path: Path, name: str, rate_hz: int
) -> None:
    clock = Clock()
    both = np.stack([tone(rate_hz, 1.5), tone(rate_hz, 1.5)], axis=1)
    chunks = listen(open_file(tmp_path / name, both, rate_hz, clock), clock, 2.0)
    heard = np.concatenate([chunk.data for chunk in chunks])
    assert abs(len(heard) - 24_000) <= 1
    error = heard[4_000:20_000].astype(float) - tone(16_000, 1.5)[4_000:20_000]
    # ogg is lossy, and the filter's delay of 0.1 ms is 19 % of a radian at 300 Hz.
    assert np.sqrt((error**2).mean()) < (300 if name == "a.ogg" else 30) + 9_000 * 0.14


def test_a_float_file_is_scaled_and_one_channel_can_be_chosen(tmp_path: Path) -> None:
    clock = Clock()
    both = np.stack([np.full(1_600, 0.5), np.full(1_600, -2.0)], axis=1)
    path = tmp_path / "a.wav"
    soundfile.write(path, both, 16_000, subtype="FLOAT")
    for channel, value in ((0, 16_384), (1, -32_768), (-1, -8_192)):
        config = MicConfig(source=f"file:{path}", channels=2, channel=channel)
        microphone = make_microphone(config, clock)
        microphone.open()
        microphone.read(0.0)
        assert set(listen(microphone, clock, 0.1)[0].data.tolist()) == {value}


def test_a_looping_file_goes_on_without_a_seam(tmp_path: Path) -> None:
    clock = Clock()
    samples = np.arange(1, 2_401, dtype=np.int16)
    microphone = open_file(tmp_path / "a.wav", samples, 16_000, clock, loop=True)
    chunks = listen(microphone, clock, 1.0)
    heard = np.concatenate([chunk.data for chunk in chunks])
    np.testing.assert_array_equal(heard, np.tile(samples, 7)[:16_000])
    assert all(b.stamp_ns == a.end_ns for a, b in pairwise(chunks))


@pytest.mark.parametrize("content", [None, b"", b"this is no sound at all", "empty wav"])
def test_a_file_that_is_no_sound_is_named(tmp_path: Path, content: object) -> None:
    path = tmp_path / "bad.wav"
    if content == "empty wav":
        soundfile.write(path, np.zeros(0, np.int16), 16_000)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.wav"):
        make_microphone(MicConfig(source=f"file:{path}"), Clock()).open()


def test_gain_is_applied_and_limited_and_the_correction_moves_the_stamps(tmp_path: Path) -> None:
    clock = Clock()
    samples = np.array([100, -100, 30_000, -30_000] * 400, np.int16)
    microphone = open_file(
        tmp_path / "a.wav", samples, 16_000, clock, gain_db=20.0, latency_correction_ms=-25.0
    )
    chunk = listen(microphone, clock, 0.1)[0]
    assert chunk.data[:4].tolist() == [1_000, -1_000, 32_767, -32_768]
    assert chunk.stamp_ns == T0 - 25 * NS_PER_MS


def test_channels_are_picked_or_averaged() -> None:
    samples = np.array([[1, 4], [3, 8]], np.int16)
    assert mono(samples, -1).tolist() == [2, 6]
    assert mono(samples, 1).tolist() == [4, 8]


# A device, driven by the test.


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakePortAudio:
    return install(monkeypatch)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock, **fields: object) -> Iterator[Microphone]:
    microphone = make_microphone(MicConfig(**fields), clock)  # type: ignore[arg-type]
    microphone.open()
    yield microphone
    microphone.close()


@pytest.fixture
def microphone(library: FakePortAudio, clock: Clock) -> Iterator[Microphone]:
    library.plug("mic")
    yield from opened(clock)


class Talker:
    """Speaks into the newest stream in blocks of 20 ms; its clock is 1000 s behind ROS time."""

    def __init__(self, library: FakePortAudio, clock: Clock) -> None:
        self._library, self._clock, self.second = library, clock, 50.0

    def say(self, samples: np.ndarray, flags: object = None) -> None:
        """int16 [frames] or [frames, channels]."""
        stream = self._library.streams[-1]
        samples = samples if samples.ndim == 2 else samples[:, np.newaxis]
        block = stream.asked["blocksize"]
        for first in range(0, len(samples), block):
            piece = samples[first : first + block]
            seconds = len(piece) / stream.asked["samplerate"]
            # The callback comes 1 ms after the first sample: see FakeStream.
            self._clock.now_ns = T0 + round((self.second + 0.001) * NS_PER_S)
            stream.block(piece, self.second, flags)
            self.second += seconds

    def pause(self, seconds: float) -> None:
        self.second += seconds


@pytest.fixture
def talker(library: FakePortAudio, clock: Clock) -> Talker:
    return Talker(library, clock)


def read_all(microphone: Microphone) -> list[AudioChunk]:
    chunks = []
    while (chunk := microphone.read(0.0)) is not None:
        chunks.append(chunk)
    return chunks


def test_a_device_is_heard_with_the_time_of_its_adc(microphone: Microphone, talker: Talker) -> None:
    samples = np.random.default_rng(4).integers(-9_000, 9_000, 16_000).astype(np.int16)
    talker.say(samples)
    chunks = read_all(microphone)
    np.testing.assert_array_equal(np.concatenate([chunk.data for chunk in chunks]), samples)
    assert abs(chunks[0].stamp_ns - (T0 + 50 * NS_PER_S)) < NS_PER_MS
    assert all(abs(b.stamp_ns - a.end_ns) < 31_250 for a, b in pairwise(chunks))


@pytest.mark.parametrize("rate_hz", [48_000, 44_100])
def test_a_device_that_does_not_do_16_khz_is_resampled_and_its_stamps_stay_right(
    library: FakePortAudio, clock: Clock, talker: Talker, rate_hz: int
) -> None:
    library.plug("mic", (2,), (rate_hz,))
    for microphone in opened(clock):
        both = np.stack([tone(rate_hz, 2.0), tone(rate_hz, 2.0)], axis=1)
        talker.say(both)
        chunks = read_all(microphone)
    assert len(chunks) == 19
    # By its stamps every sample lies on the tone that began at second 50.
    for chunk in chunks[2:-2]:
        seconds = (chunk.stamp_ns - T0 - 50 * NS_PER_S) / NS_PER_S + np.arange(1_600) / 16_000
        wanted = 9_000 * np.sin(2 * np.pi * 300 * seconds)
        assert np.abs(chunk.data - wanted).max() < 200


def test_a_reader_that_comes_seldom_sees_no_steps_in_the_stamps(
    microphone: Microphone, talker: Talker
) -> None:
    """The device's clock runs 150 ppm slow, which the stamps follow 20 us a chunk."""
    for _ in range(6):
        talker.say(np.ones(16_000, np.int16))
        read_all(microphone)  # the device has settled
    chunks = []
    for _ in range(20):
        for _ in range(50):
            talker.say(np.ones(320, np.int16))
            talker.pause(0.02 * 150e-6)
        chunks += read_all(microphone)
    assert len(chunks) == 200
    assert max(abs(b.stamp_ns - a.end_ns) for a, b in pairwise(chunks)) <= 20_000
    late_ns = chunks[-1].stamp_ns - chunks[0].stamp_ns - 199 * 100 * NS_PER_MS
    assert abs(late_ns - 20 * NS_PER_S * 150e-6) < NS_PER_MS


def test_the_stamps_follow_a_device_that_begins_with_the_wrong_time(
    microphone: Microphone, talker: Talker
) -> None:
    """As a sound server does, which takes a second to find its latency: here it was 30 ms off."""
    talker.say(np.ones(16_000, np.int16))
    chunks = read_all(microphone)
    talker.pause(0.03)
    for _ in range(6):
        talker.say(np.ones(16_000, np.int16))
        chunks += read_all(microphone)
    assert microphone.status.jumps == 0
    # In small steps, so that nothing seems to be lost.
    assert max(abs(b.stamp_ns - a.end_ns) for a, b in pairwise(chunks)) <= NS_PER_MS
    true_ns = T0 + round(talker.second * NS_PER_S)
    assert abs(chunks[-1].end_ns - true_ns) < NS_PER_MS


def test_what_a_late_reader_loses_is_counted_and_the_rest_has_its_own_time(
    microphone: Microphone, talker: Talker
) -> None:
    talker.say(np.full(16_000 * 3, 1, np.int16))
    first = read_all(microphone)
    assert sum(len(chunk.data) for chunk in first) == 32_000
    assert microphone.status.overflow_ms == 1000
    talker.say(np.full(4_800, 2, np.int16))
    second = read_all(microphone)
    assert {int(value) for chunk in second for value in chunk.data} == {2}
    assert abs(second[0].stamp_ns - (T0 + 53 * NS_PER_S)) < NS_PER_MS


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=12))
def test_every_sample_has_the_time_at_which_it_was_captured_or_is_counted_as_lost(
    steps: list[tuple[int, bool]],
) -> None:
    """The samples are numbered, so that stamp and number must agree however late the reader is."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        library = install(patch)
        library.plug("mic")
        talker = Talker(library, clock)
        for microphone in opened(clock):
            said, chunks = 0, []
            for blocks, reads in [(6, True), *steps, (10, True)]:
                numbers = (said + np.arange(blocks * 320)) % 30_000
                talker.say(numbers.astype(np.int16))
                said += blocks * 320
                if reads:
                    chunks += read_all(microphone)
            overflow_ms = microphone.status.overflow_ms
    for chunk in chunks:
        number = round((chunk.stamp_ns - T0 - 50 * NS_PER_S) * 16 / NS_PER_MS)
        expected = (number + np.arange(len(chunk.data))) % 30_000
        np.testing.assert_array_equal(chunk.data, expected)
    kept = sum(len(chunk.data) for chunk in chunks)
    assert 0 <= said - kept - overflow_ms * 16 < 1_600


def test_sound_that_the_device_lost_moves_the_stamps(
    microphone: Microphone, talker: Talker
) -> None:
    talker.say(np.ones(16_000, np.int16))
    before = read_all(microphone)
    talker.pause(0.5)
    talker.say(np.ones(16_000, np.int16), flags="input overflow")
    after = read_all(microphone)
    status = microphone.status
    assert abs(after[-1].stamp_ns - before[-1].stamp_ns - 1.5 * NS_PER_S) < 2 * NS_PER_MS
    assert (status.jumps, status.xruns) == (1, 50)
    assert abs(status.jump_ms - 500) < 2


def test_a_device_without_capture_times_is_stamped_by_the_callback_and_says_so(
    library: FakePortAudio, microphone: Microphone, clock: Clock
) -> None:
    for _ in range(50):
        clock.now_ns += 20 * NS_PER_MS
        library.streams[-1].block(np.zeros((320, 1), np.int16), -0.001)
    chunks = read_all(microphone)
    assert "no usable capture times" in microphone.status.problem
    assert microphone.status.guessed_stamps == 50
    # The callback comes when the block is full; 40 ms is the latency that the device claims.
    assert chunks[0].stamp_ns == T0 + 20 * NS_PER_MS - 40 * NS_PER_MS


def test_after_an_unplug_the_stream_goes_on_with_new_stamps(
    library: FakePortAudio, microphone: Microphone, talker: Talker
) -> None:
    talker.say(np.full(1_600 + 700, 1, np.int16))
    library.streams[-1].unplug()
    until(lambda: microphone.status.state == "lost")
    assert microphone.status.problem
    # What was heard before the loss is not lost with it.
    chunks = [microphone.read(5.0), microphone.read(5.0)]
    assert [len(chunk.data) for chunk in chunks if chunk] == [1_600, 700]
    assert microphone.read(0.0) is None
    talker.pause(30.0)
    library.listed[0]["plugged"] = True
    until(lambda: microphone.status.state == "running")
    talker.say(np.full(4_800, 2, np.int16))
    after = read_all(microphone)
    assert sum(len(chunk.data) for chunk in after) == 4_800
    assert abs(after[0].stamp_ns - (T0 + round((80 + 2_300 / 16_000) * NS_PER_S))) < NS_PER_MS
    assert [chunk.sequence for chunk in after] == [2, 3, 4]
    assert microphone.status.reopenings == 1
    assert microphone.status.problem == ""


def test_who_reads_while_the_device_starts_again_hears_it(
    library: FakePortAudio, microphone: Microphone, talker: Talker
) -> None:
    talker.say(np.ones(1_600, np.int16))
    library.streams[-1].unplug()
    until(lambda: microphone.status.state == "lost")
    read_all(microphone)
    library.starting = lambda: microphone.read(0.0)
    library.listed[0]["plugged"] = True
    until(lambda: microphone.status.state == "running")
    for _ in range(3):
        talker.say(np.full(1_600, 2, np.int16))
        assert [len(chunk.data) for chunk in read_all(microphone)] == [1_600]


def test_the_status_can_be_printed(microphone: Microphone) -> None:
    values = microphone.status.as_dict()
    assert values["device"] == "mic"
    assert values["state"] == "running"

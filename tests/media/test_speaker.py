"""Speakers: paced by a clock, into a file, and a device on a fake PortAudio."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from minicpmo_ros.errors import ConfigError
from minicpmo_ros.media.playback import PlayQueue
from minicpmo_ros.media.speaker import Speaker, SpeakerConfig, make_speaker
from minicpmo_ros.messages import NS_PER_MS, NS_PER_S, Playback, PlaybackEvent, SpeechChunk
from tests.media.fake_portaudio import FakePortAudio, install, until

T0 = 1_700_000_000 * NS_PER_S
STARTED, PLAYING, FINISHED, INTERRUPTED = PlaybackEvent


def noise(samples: int) -> np.ndarray:
    random = np.random.default_rng(5)
    return (random.integers(1, 9_000, samples) * random.choice([-1, 1], samples)).astype(np.int16)


def chunk(samples: np.ndarray, stamp_ns: int = 0, turn: int = 1, last: bool = True) -> SpeechChunk:
    return SpeechChunk(stamp_ns, 1, turn, 0, 0, samples, "some words", last=last)


def clock_speaker(queue: PlayQueue, **fields: object) -> Speaker:
    config = SpeakerConfig(sink="clock", **fields)  # type: ignore[arg-type]
    speaker = make_speaker(config, queue, lambda: 0)
    speaker.open()
    return speaker


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sink": "loud"}, "sink 'loud': must be device, clock or file:PATH"),
        ({"sink": "file:"}, "sink 'file:'"),
        ({"block_ms": 4}, "block_ms 4: must be 5 to 100 ms"),
        ({"latency_ms": -1}, "latency_ms -1"),
        ({"block_ms": None}, "block_ms None"),
        ({"latency_correction_ms": float("inf")}, "latency_correction_ms inf"),
    ],
)
def test_a_setting_that_cannot_be_is_named(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpeakerConfig(**fields)


def test_the_clock_drains_the_queue_at_its_pace() -> None:
    queue = PlayQueue()
    speaker = clock_speaker(queue)
    speaker.advance(T0)
    queue.push(chunk(noise(24_000), stamp_ns=T0 + 30 * NS_PER_MS))
    speaker.advance(T0 + 530 * NS_PER_MS)
    # Blocks are taken when they begin, and the block at 520 ms has begun.
    assert queue.queued_samples == 24_000 - 510 * 24
    speaker.advance(T0 + 2 * NS_PER_S)
    reports = queue.reports()
    assert reports[0].stamp_ns == T0 + 30 * NS_PER_MS
    assert reports[-1].stamp_ns == T0 + 1_030 * NS_PER_MS


@given(
    steps=st.lists(st.integers(0, 300), min_size=1, max_size=40),
    start_ms=st.integers(0, 100),
    said_ms=st.integers(0, 400),
)
def test_how_often_the_clock_is_read_changes_nothing(
    steps: list[int], start_ms: int, said_ms: int
) -> None:
    def reports(times_ms: list[int]) -> list[Playback]:
        queue = PlayQueue()
        speaker = clock_speaker(queue)
        said = False
        for time_ms in sorted({*times_ms, said_ms}):
            speaker.advance(T0 + time_ms * NS_PER_MS)
            if time_ms >= said_ms and not said:
                queue.push(chunk(noise(7_000), stamp_ns=T0 + start_ms * NS_PER_MS))
                said = True
        speaker.advance(T0 + 20 * NS_PER_S)
        return queue.reports()

    assert reports([0, *np.cumsum(steps).tolist()]) == reports([0])


@pytest.mark.parametrize("jump_s", [-3_600, 3_600])
def test_a_clock_that_is_set_leaves_the_speaker_working(jump_s: int) -> None:
    queue = PlayQueue()
    speaker = clock_speaker(queue)
    speaker.advance(T0)
    queue.push(chunk(noise(4_800), turn=1, stamp_ns=T0))
    now_ns = T0 + jump_s * NS_PER_S
    speaker.advance(now_ns)
    queue.push(chunk(noise(4_800), turn=2, stamp_ns=now_ns))
    speaker.advance(now_ns + NS_PER_S)
    finished = [report for report in queue.reports() if report.event is FINISHED]
    assert [report.turn for report in finished] == [1, 2]
    assert abs(finished[-1].stamp_ns - now_ns) < NS_PER_S


def test_the_correction_moves_what_is_said_to_have_sounded() -> None:
    queue = PlayQueue()
    speaker = clock_speaker(queue, latency_correction_ms=120.0)
    speaker.advance(T0)
    queue.push(chunk(noise(480)))
    speaker.advance(T0 + 20 * NS_PER_MS)
    assert queue.reports()[0].stamp_ns == T0 + 140 * NS_PER_MS


def test_a_closed_speaker_plays_nothing_and_what_waits_is_interrupted() -> None:
    queue = PlayQueue()
    speaker = clock_speaker(queue)
    speaker.advance(T0)
    queue.push(chunk(noise(4_800)))
    speaker.close()
    speaker.advance(T0 + NS_PER_S)
    assert [report.event for report in queue.reports()] == [INTERRUPTED]
    assert speaker.status.state == "closed"


def test_the_time_axis_of_the_file_is_the_timeline(tmp_path: Path) -> None:
    path = tmp_path / "said.wav"
    queue = PlayQueue()
    speaker = make_speaker(SpeakerConfig(sink=f"file:{path}"), queue, lambda: 0)
    speaker.open()
    first, second = noise(3_000), noise(500)
    speaker.advance(T0)
    queue.push(chunk(first, stamp_ns=T0 + 100 * NS_PER_MS, turn=1))
    speaker.advance(T0 + 3 * NS_PER_S)
    queue.push(chunk(second, stamp_ns=T0 + 10 * NS_PER_S, turn=2))
    speaker.advance(T0 + 20 * NS_PER_S)
    speaker.close()
    samples, rate_hz = soundfile.read(path, dtype="int16")
    assert rate_hz == 24_000
    assert len(samples) == 24_000 * 20 + 480
    np.testing.assert_array_equal(samples[2_400:5_400], first)
    np.testing.assert_array_equal(samples[240_000:240_500], second)
    assert np.count_nonzero(samples) <= 3_500 + 2 * 72


def test_a_file_is_not_filled_with_the_silence_of_a_clock_that_was_set(tmp_path: Path) -> None:
    path = tmp_path / "said.wav"
    speaker = make_speaker(SpeakerConfig(sink=f"file:{path}"), PlayQueue(), lambda: 0)
    speaker.open()
    speaker.advance(T0)
    speaker.advance(T0 + 86_400 * NS_PER_S)
    speaker.close()
    assert len(soundfile.read(path)[0]) < 24_000
    assert speaker.status.jumps == 1


@pytest.mark.parametrize("name", ["missing/said.wav", "said.mp4"])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    speaker = make_speaker(SpeakerConfig(sink=f"file:{tmp_path / name}"), PlayQueue(), lambda: 0)
    with pytest.raises(ConfigError, match=r"said\.(wav|mp4)"):
        speaker.open()


# A device, driven by the test.


class Hearer:
    """Runs the newest stream in real blocks; its clock is T0 behind ROS time."""

    def __init__(self, library: FakePortAudio) -> None:
        self._library, self.second, self.now_ns = library, 50.0, T0
        self.heard: list[np.ndarray] = []

    def clock(self) -> int:
        return self.now_ns

    def hear(self, seconds: float) -> np.ndarray:
        """All that sounds, int16 [frames, channels], in the next while."""
        stream = self._library.streams[-1]
        rate_hz, block = stream.asked["samplerate"], stream.asked["blocksize"]
        blocks = []
        for _ in range(round(seconds * rate_hz / block)):
            self.now_ns = T0 + round((self.second + 0.001) * NS_PER_S)
            data = np.full((block, stream.asked["channels"]), 77, np.int16)
            blocks.append(stream.block(data, self.second))
            self.second += block / rate_hz
        return np.concatenate(blocks)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakePortAudio:
    return install(monkeypatch)


def device_speaker(library: FakePortAudio, queue: PlayQueue) -> tuple[Speaker, Hearer]:
    hearer = Hearer(library)
    speaker = make_speaker(SpeakerConfig(), queue, hearer.clock)
    speaker.open()
    return speaker, hearer


def test_a_device_plays_the_queue_at_the_time_of_its_dac(library: FakePortAudio) -> None:
    library.plug("speaker")
    queue = PlayQueue()
    speaker, hearer = device_speaker(library, queue)
    hearer.hear(1.0)
    speech = noise(10_000)
    queue.push(chunk(speech, stamp_ns=T0 + round(51.05 * NS_PER_S)))
    heard = hearer.hear(1.0)[:, 0]
    speaker.close()
    np.testing.assert_array_equal(heard[1_200:11_200], speech)
    assert not heard[:1_200].any()
    reports = queue.reports()
    assert abs(reports[0].stamp_ns - (T0 + 51.05 * NS_PER_S)) < 2 * NS_PER_MS
    assert reports[-1].event is FINISHED


def test_both_channels_of_a_stereo_device_sound_alike(library: FakePortAudio) -> None:
    library.plug("speaker", (2,))
    queue = PlayQueue()
    speaker, hearer = device_speaker(library, queue)
    queue.push(chunk(noise(2_400)))
    heard = hearer.hear(0.2)
    speaker.close()
    assert heard.shape[1] == 2
    np.testing.assert_array_equal(heard[:, 0], heard[:, 1])
    assert heard.any()


@pytest.mark.parametrize("rate_hz", [48_000, 44_100, 16_000])
def test_a_device_that_does_not_do_24_khz_sounds_the_same_and_stamps_stay_right(
    library: FakePortAudio, rate_hz: int
) -> None:
    library.plug("speaker", (1,), (rate_hz,))
    queue = PlayQueue()
    speaker, hearer = device_speaker(library, queue)
    hearer.hear(1.0)
    start_s = hearer.second
    time_s = np.arange(24_000) / 24_000
    tone = np.rint(9_000 * np.sin(2 * np.pi * 300 * time_s)).astype(np.int16)
    queue.push(chunk(tone))
    heard = hearer.hear(1.5)[:, 0]
    speaker.close()
    reports = queue.reports()
    assert reports[-1].turn_samples == 24_000
    # By the stamp of its start every sample lies on the tone.
    began_s = (reports[0].stamp_ns - T0) / NS_PER_S
    at_s = start_s + np.arange(len(heard)) / rate_hz - began_s
    inside = (at_s > 0.01) & (at_s < 0.95)
    wanted = 9_000 * np.sin(2 * np.pi * 300 * at_s[inside])
    assert np.abs(heard[inside] - wanted).max() < 300
    # Silent before the tone, and again soon after it.
    assert not heard[at_s < -0.02].any()
    assert np.abs(heard[at_s > 1.02]).max() <= 1


@pytest.mark.parametrize("rate_hz", [24_000, 48_000])
def test_an_interruption_is_silent_after_one_block_of_the_device(
    library: FakePortAudio, rate_hz: int
) -> None:
    library.plug("speaker", (1,), (rate_hz,))
    queue = PlayQueue()
    speaker, hearer = device_speaker(library, queue)
    queue.push(chunk(noise(48_000)))
    hearer.hear(0.5)
    queue.interrupt(2)
    after = hearer.hear(0.5)[:, 0]
    speaker.close()
    assert after[: rate_hz // 1000].any()
    assert np.abs(after[rate_hz // 50 :]).max() <= 1


def test_what_is_pushed_while_the_device_is_gone_is_interrupted(library: FakePortAudio) -> None:
    number = library.plug("speaker")
    queue = PlayQueue()
    speaker, hearer = device_speaker(library, queue)
    queue.push(chunk(noise(48_000), turn=1))
    hearer.hear(0.2)
    library.streams[-1].unplug()
    until(lambda: speaker.status.problem)
    until(lambda: not queue.queued_samples)
    queue.push(chunk(noise(4_800), turn=2))
    until(lambda: not queue.queued_samples)
    library.listed[number]["plugged"] = True
    until(lambda: speaker.status.state == "running")
    hearer.second += 30.0
    speech = noise(2_400)
    queue.push(chunk(speech, turn=3))
    heard = hearer.hear(0.3)[:, 0]
    speaker.close()
    np.testing.assert_array_equal(heard[:2_400], speech)
    ends = {r.turn: r.event for r in queue.reports() if r.event in (FINISHED, INTERRUPTED)}
    assert ends == {1: INTERRUPTED, 2: INTERRUPTED, 3: FINISHED}
    assert speaker.status.reopenings == 1


def test_what_is_played_is_stamped_without_a_gap(library: FakePortAudio) -> None:
    library.plug("speaker")
    queue = PlayQueue()
    speaker, hearer = device_speaker(library, queue)
    hearer.hear(1.0)
    queue.push(chunk(noise(24_000)))
    hearer.hear(1.5)
    speaker.close()
    played = queue.played()
    assert len(played) == 51
    assert all(abs(b.stamp_ns - a.end_ns) < 41_667 for a, b in pairwise(played))
    assert speaker.status.as_dict()["state"] == "closed"

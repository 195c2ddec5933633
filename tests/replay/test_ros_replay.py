"""Both ways of replay, without ROS and through the real nodes, write the same bytes."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.media.resample import resample
from minicpmo_ros.messages import (
    MIC_RATE_HZ,
    NS_PER_S,
    AudioChunk,
    Decision,
    Playback,
    PlaybackEvent,
)
from minicpmo_ros.replay.bag import BagWriter, open_bag
from minicpmo_ros.replay.progress import no_progress
from minicpmo_ros.replay.run import replay
from minicpmo_ros.topics import MIC

T0 = 1_700_000_000 * NS_PER_S
HAS_ROS = importlib.util.find_spec("rclpy") is not None
needs_ros = pytest.mark.skipif(
    not HAS_ROS and not os.environ.get("CI"), reason="rclpy is not installed"
)


def person(seconds: float, *lines: tuple[float, str]) -> np.ndarray:
    """What a microphone hears of somebody who says lines at times (s): int16 at 16 kHz."""
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 8, round(seconds * MIC_RATE_HZ))
    voice = Synthesiser(voice="en-gb", rate_wpm=170)
    for start_s, text in lines:
        said = voice.speak(text)
        speech = resample(said.data, said.rate_hz, MIC_RATE_HZ)
        first = round(start_s * MIC_RATE_HZ)
        sound[first : first + len(speech)] += speech[: len(sound) - first]
    return np.clip(sound, -32768, 32767).astype(np.int16)


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """12 s: a question, and an interruption of the answer; pictures, and a gap in the sound."""
    path = tmp_path_factory.mktemp("bag") / "talk"
    sound = person(
        12.0, (0.4, "Hello robot, what do you see?"), (4.2, "Wait a moment, please wait.")
    )
    grey = np.linspace(0, 255, 160 * 120, dtype=np.uint8).reshape(120, 160)
    with BagWriter(path) as bag:
        for i in range(120):
            at_ns = T0 + i * NS_PER_S // 10
            picture = np.dstack([np.roll(grey, 8 * i, axis=1)] * 3)
            bag.write_jpeg(at_ns, at_ns, encode_jpeg(picture))
            chunk = AudioChunk(at_ns, sound[i * 1600 : (i + 1) * 1600], MIC_RATE_HZ, i)
            if not 93 <= i < 96:
                bag.write(MIC, chunk.end_ns, chunk)
    return path


def run(recording: Path, out: Path, *, ros: bool, brain: str = "reflex") -> bytes:
    with open_bag(recording) as bag:
        replay(bag, out, ros=ros, parameters={"brain": brain}, progress=no_progress)
    return (out / "data.mcap").read_bytes()


def test_twice_without_ros_gives_the_same_bytes(recording, tmp_path):
    assert run(recording, tmp_path / "a", ros=False) == run(recording, tmp_path / "b", ros=False)


@needs_ros
def test_real_nodes_write_the_bytes_of_the_replay_without_ros(recording, tmp_path):
    assert run(recording, tmp_path / "ros", ros=True) == run(recording, tmp_path / "a", ros=False)


@needs_ros
def test_twice_through_the_real_nodes_gives_the_same_bytes(recording, tmp_path):
    assert run(recording, tmp_path / "a", ros=True) == run(recording, tmp_path / "b", ros=True)


def test_the_recording_holds_an_answer_and_its_interruption(recording, tmp_path):
    run(recording, tmp_path / "a", ros=False)
    with open_bag(tmp_path / "a") as bag:
        messages = [message for _, _, message in bag.messages()]
    events = [x.event for x in messages if isinstance(x, Playback)]
    assert PlaybackEvent.STARTED in events
    assert PlaybackEvent.INTERRUPTED in events
    filled = [x.audio_filled_ms for x in messages if isinstance(x, Decision)]
    assert sum(filled) == pytest.approx(300.0, abs=1)
    assert len(filled) == 12

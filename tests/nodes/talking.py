"""Recordings of somebody who talks to the robot, and what it made of them through the nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minicpmo_ros.media.compressed import encode_jpeg
from minicpmo_ros.media.espeak import Synthesiser
from minicpmo_ros.media.resample import resample
from minicpmo_ros.messages import MIC_RATE_HZ, NS_PER_S, Action, AudioChunk
from minicpmo_ros.replay.bag import open_bag
from minicpmo_ros.replay.bag_writer import BagWriter
from minicpmo_ros.replay.progress import no_progress
from minicpmo_ros.replay.run import replay
from minicpmo_ros.topics import MIC
from tests.replay.live import at, read

LEVEL = 8000.0  # of the loudest sample of a line, of 32768


@dataclass(frozen=True)
class Line:
    """What somebody says; ends_s: its last sample."""

    text: str
    ends_s: float
    voice: str = "en-us"
    rate_wpm: int = 160


def write_talk(
    out: Path,
    seconds: int,
    lines: Sequence[Line],
    *,
    noise: Callable[[int], np.ndarray] | None = None,
    picture: Callable[[float], np.ndarray] | None = None,
) -> Path:
    """A bag of lines in a quiet room; noise: float32 [samples], of full scale 1, on top of it;
    picture: of a moment, ten times a second."""
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 12, seconds * MIC_RATE_HZ).astype(np.float32)
    for line in lines:
        spoken = Synthesiser(voice=line.voice, rate_wpm=line.rate_wpm).speak(line.text)
        samples = resample(spoken.data, spoken.rate_hz, MIC_RATE_HZ).astype(np.float32)
        samples *= LEVEL / np.abs(samples).max()
        last = round(line.ends_s * MIC_RATE_HZ)
        sound[last - len(samples) : last] += samples
    if noise is not None:
        sound += 32768 * noise(len(sound))
    data = np.clip(np.rint(sound), -32768, 32767).astype(np.int16)
    with BagWriter(out) as bag:
        for i in range(10 * seconds):
            if picture is not None:
                bag.write_jpeg(at(i / 10), at(i / 10), encode_jpeg(picture(i / 10)))
            chunk = AudioChunk(at(i / 10), data[i * 1600 : (i + 1) * 1600], sequence=i)
            bag.write(MIC, at((i + 1) / 10), chunk)
    return out


@dataclass(frozen=True)
class Lived:
    """All that came out, by topic, as (seconds of the recording, message)."""

    messages: dict[str, list]

    def said(self, from_s: float, to_s: float) -> str:
        """The words of the units that end between these moments."""
        return "".join(
            m.text for s, m in self.messages["decision"] if from_s < s <= to_s and m.text
        ).strip()

    def answer(self, line_ends_s: float, by_s: float = 2.0) -> str:
        """The turn that begins within by_s after a line; "" if there is none."""
        words, begun = "", False
        for s, m in self.messages["decision"]:
            speaks = m.action is Action.SPEAK
            if begun and not speaks:
                break
            if speaks and (begun or line_ends_s < s <= line_ends_s + by_s):
                begun = True
                words += m.text
                if m.end_of_turn:
                    break
        return words.strip()

    def of(self, topic: str) -> list:
        return self.messages.get(topic, [])


def live_through(bag: Path, out: Path, **parameters: object) -> Lived:
    """The bag through the real nodes in simulated time, decided by nano."""
    with open_bag(bag) as opened:
        begins_ns = opened.start_ns
        replay(
            opened, out, ros=True, parameters={"brain": "local", **parameters}, progress=no_progress
        )
    return Lived(
        {
            name: [((m.stamp_ns - begins_ns) / NS_PER_S, m) for _, m in messages]
            for name, messages in read(out).items()
        }
    )
